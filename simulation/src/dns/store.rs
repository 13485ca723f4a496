//! The Services and EndpointSlices that a name server knows.

use std::collections::BTreeMap;

use crate::kubernetes::{Change, EndpointSlice, Service, SliceEvent};

/// Services and EndpointSlices by namespace and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    services: BTreeMap<(String, String), Service>,
    slices: BTreeMap<(String, String), EndpointSlice>,
}

impl Store {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Service(service) => {
                self.services.insert((service.namespace.clone(), service.name.clone()), service);
            }
            Change::ServiceDeleted(namespace, name) => {
                self.services.remove(&(namespace, name));
            }
            Change::Slice(SliceEvent::Added(slice) | SliceEvent::Modified(slice)) => {
                self.slices.insert((slice.namespace.clone(), slice.name.clone()), slice);
            }
            Change::Slice(SliceEvent::Deleted(slice)) => {
                self.slices.remove(&(slice.namespace, slice.name));
            }
        }
    }

    /// Whether a namespace has a Service. Namespaces without one are of no interest to a client.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.services.keys().any(|(of, _)| of == namespace)
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Returns the EndpointSlices of a Service, by name.
    pub(super) fn slices<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.values().filter(|slice| slice.namespace == service.namespace && slice.service == service.name)
    }
}
