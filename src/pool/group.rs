//! Groups of pools that share their Pods. The tasks of a group belong to no single pool, so any of its pools can be
//! dropped.

mod agreement;

use std::sync::Arc;

use tokio::{sync::mpsc, task::AbortHandle};

pub(super) use agreement::check;

use super::{
    directory::{Change, Directory, Subset},
    inner::Inner,
    pod::{group::Group, message::Message},
    supervise,
    upkeep::refresher,
};
use crate::{
    discovery::Resolve,
    error::{Error, Kind},
    system::spawn_on,
    unwind::PanicSource,
};

/// A group, held by the handles of its pools. When the last one is dropped, the tasks of the group end.
#[derive(Debug)]
pub(crate) struct GroupHandle {
    pub(crate) group: Arc<Group>,
    changes: mpsc::UnboundedSender<Change>,
    directory: AbortHandle,
}

impl GroupHandle {
    /// Starts the tasks of a group with one pool.
    pub(super) fn start(first: &Arc<Inner>, messages: mpsc::UnboundedReceiver<Message>) -> Self {
        let group = first.shared.group.clone();
        let (changes, changed) = mpsc::unbounded_channel();
        let directory = Directory::new(group.clone(), first.clone(), Subset::new(&group.config));
        let directory = spawn_on(&group.runtime, directory.run(messages, changed)).abort_handle();
        Self { group, changes, directory }
    }

    /// Starts the lookups of the configured hosts, unless they were already started.
    pub(super) fn start_lookups(&self) {
        self.group.set_refreshers(|| {
            let hosts = self.group.resolvers.iter().enumerate();
            let refresher = |(host, resolver): (usize, &Arc<dyn Resolve>)| {
                let (resolver, group) = (resolver.clone(), self.group.clone());
                let run = move || refresher::run(host, resolver.clone(), group.clone());
                supervise::spawn_shared(&self.group, PanicSource::Refresher, run)
            };
            hosts.map(refresher).collect()
        });
    }

    /// Returns an error if the group has ended.
    pub(super) fn check_alive(&self) -> Result<(), Error> {
        match self.group.inbox.is_closed() {
            true => Err(Error::new(Kind::Shutdown, "cannot share the Pods of a pool that is closed")),
            false => Ok(()),
        }
    }

    /// Sends a change to the directory task. Does nothing after the directory has ended.
    pub(super) fn change(&self, change: Change) {
        drop(self.changes.send(change));
    }
}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        self.directory.abort();
        self.group.abort_refreshers();
    }
}
