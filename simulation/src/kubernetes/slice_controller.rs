//! The EndpointSlice controller's decision: how the slices of a family change when the Pods do.

use std::{cmp::Reverse, net::IpAddr};

use super::{
    pod::Pod,
    service::{Family, Service},
    slice::{Conditions, Endpoint, EndpointSlice, SliceEvent},
};

/// Letters of generated names.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Returns the endpoints that a Service has in a family.
pub(super) fn endpoints<'a>(
    service: &Service,
    family: Family,
    pods: impl IntoIterator<Item = &'a Pod>,
) -> Vec<Endpoint> {
    let selected = pods.into_iter().filter(|pod| pod.is_selected && !pod.is_gone);
    selected.filter_map(|pod| endpoint(service, family, pod)).collect()
}

fn endpoint(service: &Service, family: Family, pod: &Pod) -> Option<Endpoint> {
    let terminating = pod.deletion.is_some();
    let conditions =
        Conditions { ready: service.publish_not_ready || (pod.ready && !terminating), serving: pod.ready, terminating };
    Some(Endpoint {
        address: pod.info.addresses.iter().copied().find(|address| Family::of(*address) == family)?,
        conditions,
        hostname: Some(pod.info.name.clone()),
        node: pod.info.node.clone(),
        pod: pod.info.name.clone(),
    })
}

/// Changes the slices of a family so that they have the desired endpoints, with as few writes as possible, and
/// returns the writes: of new slices, of changed ones, and deletions.
pub(super) fn reconcile(
    service: &Service,
    family: Family,
    mut desired: Vec<Endpoint>,
    limit: usize,
    slices: &mut Vec<EndpointSlice>,
    random: &mut fastrand::Rng,
) -> Vec<SliceEvent> {
    let before = slices.clone();
    // Endpoints that have a slice keep their place.
    for slice in slices.iter_mut() {
        slice.endpoints.retain_mut(|endpoint| match take(&mut desired, endpoint.address, &endpoint.pod) {
            Some(new) => {
                *endpoint = new;
                true
            }
            None => false,
        });
    }
    // The controller keeps the others in a hash set.
    random.shuffle(&mut desired);
    let mut created = place(service, family, desired, limit, &before, slices, random);

    // A placeholder remains where no slice has endpoints.
    let is_empty = created.is_empty() && slices.iter().all(|slice| slice.endpoints.is_empty());
    if is_empty && slices.is_empty() {
        created.push(new_slice(service, family, Vec::new(), random));
    }
    let mut events: Vec<SliceEvent> = created.iter().cloned().map(SliceEvent::Added).collect();
    let mut deleted = Vec::new();
    let mut kept = Vec::new();
    for (mut slice, before) in slices.drain(..).zip(before) {
        if slice.endpoints.is_empty() && !(is_empty && kept.is_empty()) {
            deleted.push(SliceEvent::Deleted(before));
            continue;
        }
        if slice.endpoints != before.endpoints {
            slice.generation += 1;
            slice.ports.clone_from(&service.ports);
            events.push(SliceEvent::Modified(slice.clone()));
        }
        kept.push(slice);
    }
    kept.append(&mut created);
    *slices = kept;
    events.append(&mut deleted);
    events
}

/// Places new endpoints: first in slices that are written anyway, then in the fullest slice with room for all, then
/// in new slices, which it returns.
fn place(
    service: &Service,
    family: Family,
    mut desired: Vec<Endpoint>,
    limit: usize,
    before: &[EndpointSlice],
    slices: &mut [EndpointSlice],
    random: &mut fastrand::Rng,
) -> Vec<EndpointSlice> {
    for (slice, before) in slices.iter_mut().zip(before) {
        if slice.endpoints != before.endpoints {
            let room = limit.saturating_sub(slice.endpoints.len()).min(desired.len());
            slice.endpoints.extend(desired.drain(..room));
        }
    }
    let mut created = Vec::new();
    while !desired.is_empty() {
        let fitting = slices.iter_mut().filter(|slice| slice.endpoints.len() + desired.len() <= limit);
        if let Some(fullest) = fitting.min_by_key(|slice| Reverse(slice.endpoints.len())) {
            fullest.endpoints.append(&mut desired);
        } else {
            let endpoints = desired.drain(..limit.min(desired.len())).collect();
            created.push(new_slice(service, family, endpoints, random));
        }
    }
    created
}

/// Takes the desired endpoint of a Pod at an address.
fn take(desired: &mut Vec<Endpoint>, address: IpAddr, pod: &str) -> Option<Endpoint> {
    let index = desired.iter().position(|endpoint| endpoint.address == address && endpoint.pod == pod)?;
    Some(desired.swap_remove(index))
}

fn new_slice(service: &Service, family: Family, endpoints: Vec<Endpoint>, random: &mut fastrand::Rng) -> EndpointSlice {
    let suffix: String = (0..5).map(|_| char::from(LETTERS[random.usize(..LETTERS.len())])).collect();
    EndpointSlice {
        namespace: service.namespace.clone(),
        service: service.name.clone(),
        name: format!("{}-{suffix}", service.name),
        family,
        ports: if endpoints.is_empty() { Vec::new() } else { service.ports.clone() },
        endpoints,
        generation: 1,
    }
}
