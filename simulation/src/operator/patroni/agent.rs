//! The cycle of one agent.

use std::{convert::Infallible, sync::Arc};

use tokio::{
    select,
    time::{Instant, sleep_until, timeout},
};

use super::Settings;
use crate::{
    operator::{
        group::{rejoin, stop},
        pods::{Pods, report_changes},
        store::{Content, Document, Lease, Store, Unavailable},
    },
    postgres::{Phase, Server, Shutdown},
};

/// The agent of one server.
pub struct Agent {
    pub(super) server: Arc<Server>,
    /// The names of all members, this one included.
    pub(super) members: Vec<String>,
    pub(super) store: Arc<dyn Store>,
    pods: Arc<dyn Pods>,
    pub(super) settings: Settings,
    /// The pause mode as it was known last, for cycles in which the store does not respond.
    paused: bool,
}

/// The next step after a part of a cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Wait for the next cycle.
    Wait,
    /// The document has changed, so a new cycle begins immediately.
    Again,
}

impl Agent {
    /// Creates the agent of a server.
    pub fn new(
        server: Arc<Server>,
        members: Vec<String>,
        store: Arc<dyn Store>,
        pods: Arc<dyn Pods>,
        settings: Settings,
    ) -> Self {
        Self { server, members, store, pods, settings, paused: false }
    }

    /// Runs the agent until the task is dropped.
    pub async fn run(mut self) {
        let (server, pods) = (self.server.clone(), self.pods.clone());
        select! {
            biased;
            _ = report_changes(&server, &*pods) => {}
            _ = self.cycles() => {}
        }
    }

    /// Stops the server of a Pod that is being deleted, and releases the lease if the server was the leader's. The
    /// agent must not run any more.
    pub async fn terminate(self) {
        stop(&self.server, self.settings.stop_timeout).await;
        self.release().await;
    }

    async fn cycles(&mut self) -> Infallible {
        loop {
            let began = Instant::now();
            let document = self.store.read(self.name()).await;
            let next = match &document {
                Ok(document) => self.cycle(document).await,
                Err(_) => self.without_store().await,
            };
            if next == Next::Again {
                // At least one round trip passes before each cycle, so this loop cannot spin.
                continue;
            }
            let store = self.store.clone();
            let changed = async {
                match &document {
                    Ok(document) => store.changed(self.name(), document).await,
                    Err(_) => std::future::pending().await,
                }
            };
            select! {
                biased;
                () = changed => {}
                () = sleep_until(began + self.settings.loop_wait) => {}
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        self.server.name()
    }

    pub(super) fn event(&self, text: impl AsRef<str>) {
        self.server.cluster().event(self.name(), format!("patroni: {}", text.as_ref()));
    }

    /// Replaces the content of the store. Returns false if the content has changed since it was read.
    pub(super) async fn write(
        &self,
        document: &Document,
        change: impl FnOnce(&mut Content),
    ) -> Result<bool, Unavailable> {
        let mut content = document.content.clone();
        change(&mut content);
        self.store.write(self.name(), document.version, content).await
    }

    pub(super) fn lease(&self) -> Lease {
        Lease { holder: self.name().to_owned(), expires: Instant::now() + self.settings.ttl }
    }

    /// Demotes a primary, because another member may acquire the lease as soon as it expires.
    async fn without_store(&mut self) -> Next {
        if self.server.status().is_primary() && !self.paused {
            self.event("demoted, because the store is not accessible");
            stop(&self.server, self.settings.loop_wait).await;
            self.server.follow(None);
            self.server.start();
        }
        Next::Wait
    }

    async fn cycle(&mut self, document: &Document) -> Next {
        self.paused = document.content.paused;
        match &document.content.leader {
            Some(lease) if lease.holder == self.name() => self.lead(document).await,
            Some(lease) => self.follow(&lease.holder).await,
            None => self.elect(document).await,
        }
    }

    /// Runs a cycle of the leader.
    async fn lead(&mut self, document: &Document) -> Next {
        let position = self.server.status().position.0;
        let lease = self.lease();
        let renewed = self.write(document, |content| {
            content.leader = Some(lease);
            content.position = position;
        });
        match renewed.await {
            Ok(true) => {}
            // The next cycle finds out whether the lease is still held.
            Ok(false) => return Next::Again,
            Err(Unavailable) => return self.without_store().await,
        }
        let status = self.server.status();
        match status.phase {
            Phase::Stopped if status.usable => self.server.start(),
            Phase::Stopped => return self.release().await,
            _ => {}
        }
        if status.phase == Phase::Running && status.in_recovery {
            self.promote().await;
        }
        match self.store.read(self.name()).await {
            Ok(document) if document.content.switchover.is_some() => self.switch_over(&document).await,
            Ok(document) => self.update_synchronous(&document).await,
            Err(_) => self.without_store().await,
        }
    }

    /// Promotes the server after the lease was acquired.
    pub(super) async fn promote(&self) {
        if self.settings.synchronous {
            self.server.set_synchronous(self.without_synchronous());
        }
        self.server.promote();
        // A server that is not promoted in time is promoted in a later cycle.
        let _ = timeout(self.settings.loop_wait, self.server.wait_promoted()).await;
    }

    /// Releases the lease.
    pub(super) async fn release(&self) -> Next {
        if let Ok(document) = self.store.read(self.name()).await {
            let leads = document.content.leader.as_ref().is_some_and(|lease| lease.holder == self.name());
            if leads && self.write(&document, |content| content.leader = None).await == Ok(true) {
                self.event("released the lease");
            }
        }
        Next::Wait
    }

    /// Runs a cycle of a member that is not the leader.
    async fn follow(&mut self, leader: &str) -> Next {
        let status = self.server.status();
        if status.is_primary() || (status.phase != Phase::Stopped && !status.in_recovery) {
            if self.paused {
                return Next::Wait;
            }
            self.event(format!("demoted, because {leader} is the leader"));
            self.server.stop(Shutdown::Immediate);
        }
        rejoin(&self.server, leader, self.settings.stop_timeout).await;
        Next::Wait
    }
}
