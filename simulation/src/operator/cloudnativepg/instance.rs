//! The instance manager of one server.

use std::{convert::Infallible, sync::Arc};

use tokio::{
    select,
    time::{Instant, sleep, timeout},
};

use super::Settings;
use crate::{
    operator::{
        group::{observe, rejoin, stop},
        pods::{Pods, report_changes},
        store::{Document, Store},
    },
    postgres::{Phase, Server, Shutdown, Synchronous},
};

/// The instance manager of one server.
pub struct Instance {
    server: Arc<Server>,
    /// The names of all instances, this one included.
    instances: Vec<String>,
    store: Arc<dyn Store>,
    pods: Arc<dyn Pods>,
    settings: Settings,
    /// The last time at which the store or another instance was reachable.
    connected: Instant,
}

impl Instance {
    /// Creates the instance manager of a server.
    pub fn new(
        server: Arc<Server>,
        instances: Vec<String>,
        store: Arc<dyn Store>,
        pods: Arc<dyn Pods>,
        settings: Settings,
    ) -> Self {
        Self { server, instances, store, pods, settings, connected: Instant::now() }
    }

    /// Runs the instance manager until the task is dropped.
    pub async fn run(mut self) {
        let (server, pods) = (self.server.clone(), self.pods.clone());
        select! {
            biased;
            _ = report_changes(&server, &*pods) => {}
            _ = self.observations() => {}
        }
    }

    async fn observations(&mut self) -> Infallible {
        loop {
            let document = self.store.read(self.server.name()).await;
            match &document {
                Ok(document) => {
                    self.connected = Instant::now();
                    self.reconcile(document).await;
                }
                Err(_) => self.check_isolation().await,
            }
            let store = self.store.clone();
            let changed = async {
                match &document {
                    Ok(document) => store.changed(self.server.name(), document).await,
                    Err(_) => std::future::pending().await,
                }
            };
            select! {
                biased;
                () = changed => {}
                () = sleep(self.settings.interval) => {}
            }
        }
    }

    /// Stops the server of a Pod that is being deleted: with a smart shutdown, and after
    /// [`Settings::smart_shutdown`] with a fast one.
    pub async fn terminate(server: &Server, settings: &Settings) {
        server.stop(Shutdown::Smart);
        if timeout(settings.smart_shutdown, server.stopped()).await.is_err() {
            stop(server, settings.stop_delay).await;
        }
    }

    fn event(&self, text: impl AsRef<str>) {
        self.server.cluster().event(self.server.name(), format!("cloudnativepg: {}", text.as_ref()));
    }

    async fn reconcile(&self, document: &Document) {
        let name = self.server.name();
        match document.content.target_primary.as_deref() {
            Some(target) if target == name => self.be_primary(document).await,
            Some(target) => {
                self.step_down().await;
                if document.content.current_primary.as_deref() == Some(target) {
                    rejoin(&self.server, target, self.settings.stop_delay).await;
                }
            }
            // While no primary is chosen, the old one must not accept writes.
            None => self.step_down().await,
        }
    }

    /// Stops a primary that is no longer the target. Its standbys receive its whole log before it ends.
    async fn step_down(&self) {
        let status = self.server.status();
        if status.in_recovery || matches!(status.phase, Phase::Stopped) {
            return;
        }
        self.event("stops, because it is no longer the target");
        stop(&self.server, self.settings.stop_delay).await;
    }

    async fn be_primary(&self, document: &Document) {
        let (name, status) = (self.server.name(), self.server.status());
        if document.content.current_primary.as_deref() == Some(name) {
            self.server.start();
            if status.is_primary() {
                self.configure();
            }
            return;
        }
        if status.is_standby() && status.receiving {
            // The old primary still runs.
            return;
        }
        if status.is_standby() {
            self.configure();
            self.server.promote();
            self.server.wait_promoted().await;
        } else if status.phase == Phase::Stopped {
            self.server.start();
        }
        if self.server.status().is_primary() {
            self.event("is the primary");
            let mut content = document.content.clone();
            content.current_primary = Some(name.to_owned());
            // A failure is repeated with the next observation.
            let _ = self.store.write(name, document.version, content).await;
        }
    }

    /// Configures the standbys for which commits wait.
    fn configure(&self) {
        let others = self.instances.iter().filter(|name| *name != self.server.name());
        let configured = match self.settings.synchronous {
            0 => Synchronous::default(),
            required => Synchronous { names: others.cloned().collect(), required },
        };
        if self.server.status().synchronous != configured {
            self.server.set_synchronous(configured);
        }
    }

    /// Stops a primary that has reached neither the store nor another instance for some time.
    async fn check_isolation(&mut self) {
        let name = self.server.name();
        for other in self.instances.iter().filter(|other| *other != name) {
            if observe(self.server.cluster(), name, other).await.is_some() {
                self.connected = Instant::now();
                return;
            }
        }
        if self.connected.elapsed() >= self.settings.isolation && self.server.status().is_primary() {
            self.event("stops, because it is isolated");
            self.server.stop(Shutdown::Immediate);
        }
    }
}
