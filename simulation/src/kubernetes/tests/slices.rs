//! The EndpointSlice controller writes what the recorded one wrote.

use std::collections::BTreeSet;

use super::{
    super::{Endpoint, EndpointSlice, Family, Service, SliceEvent, slice_controller::reconcile},
    watches,
};

fn service() -> Service {
    Service::headless("k8s-training", "postgresql-svc", "postgresql-port", 5432)
}

/// Returns the content of a slice in a comparable form: the endpoints that were there before keep their order; those
/// that are new at once have any order.
fn content(slice: &EndpointSlice, before: &[Endpoint]) -> (Vec<Endpoint>, Vec<Endpoint>, usize, u64, Family) {
    let is_old = |endpoint: &Endpoint| before.iter().any(|old| old.address == endpoint.address);
    let (old, mut new): (Vec<_>, Vec<_>) = slice.endpoints.iter().cloned().partition(is_old);
    new.sort_by_key(|endpoint| endpoint.address);
    (old, new, slice.ports.len(), slice.generation, slice.family)
}

#[test]
fn each_recorded_write_follows_from_the_state_before_it() {
    let cases = [
        ("becomes-dual-stack", 100, 1),
        ("birth", 100, 7),
        ("dual-stack-delete", 100, 8),
        ("force-delete", 100, 4),
        ("graceful-delete", 100, 4),
        ("not-ready-and-back", 100, 2),
        ("publish-not-ready-addresses", 100, 4),
        ("several-slices", 3, 14),
    ];
    for (case, limit, count) in cases {
        let watch = watches::read(case);
        assert_eq!(watch.events.len(), count, "{case}");
        for family in [Family::V4, Family::V6] {
            let of_family = watch.before.iter().filter(|slice| slice.family == family);
            let mut slices: Vec<EndpointSlice> = of_family.cloned().collect();
            for (ms, event) in watch.events.iter().filter(|(_, event)| event.slice().family == family) {
                let context = format!("{case}, {ms} ms");
                let mut after = watches::Followed::default();
                for slice in &slices {
                    after.apply(&SliceEvent::Added(slice.clone()));
                }
                after.apply(event);
                let desired = after.slices.values().flat_map(|slice| slice.endpoints.clone()).collect();
                let mut random = fastrand::Rng::with_seed(*ms);
                let mut state = slices.clone();
                let writes = reconcile(&service(), family, desired, limit, &mut state, &mut random);
                assert_eq!(writes.len(), 1, "{context}: {writes:?}");
                let before = slices.iter().find(|slice| slice.name == event.slice().name);
                let before = before.map_or(Vec::new(), |slice| slice.endpoints.clone());
                assert_eq!(content(writes[0].slice(), &before), content(event.slice(), &before), "{context}");
                assert_eq!(std::mem::discriminant(&writes[0]), std::mem::discriminant(event), "{context}: {writes:?}");
                slices = after.slices.into_values().collect();
            }
        }
    }
}

fn endpoints(pods: std::ops::Range<u8>) -> Vec<Endpoint> {
    let endpoint = |pod: u8| Endpoint {
        address: [10, 78, 1, pod].into(),
        conditions: super::super::Conditions { ready: true, serving: true, terminating: false },
        hostname: Some(format!("pod-{pod}")),
        node: "node-a".to_owned(),
        pod: format!("pod-{pod}"),
    };
    pods.map(endpoint).collect()
}

#[test]
fn a_service_without_endpoints_keeps_one_empty_slice() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut slices = Vec::new();
    let mut sync = |desired| reconcile(&service(), Family::V4, desired, 3, &mut slices, &mut random);
    assert!(matches!(&sync(vec![])[..], [SliceEvent::Added(slice)] if slice.ports.is_empty()));
    assert_eq!(sync(vec![]), [], "nothing changes");
    // Eight endpoints do not fit into the placeholder, but the last two do.
    let writes = sync(endpoints(0..8));
    let sizes: Vec<_> = writes.iter().map(|write| write.slice().endpoints.len()).collect();
    assert_eq!(sizes, [3, 3, 2]);
    assert!(matches!(&writes[2], SliceEvent::Modified(slice) if slice.ports.len() == 1));
    let names: BTreeSet<_> = writes.iter().map(|write| write.slice().name.clone()).collect();
    assert_eq!(names.len(), 3, "each has a name of its own");
    // The slices become empty: one stays.
    let writes = sync(vec![]);
    assert!(matches!(&writes[..], [SliceEvent::Modified(kept), SliceEvent::Deleted(_), SliceEvent::Deleted(_)]
        if kept.endpoints.is_empty()));
}

#[test]
fn a_new_endpoint_goes_to_a_slice_that_is_written_anyway_and_then_to_the_fullest_with_room() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut slices = Vec::new();
    let mut sync = |desired| reconcile(&service(), Family::V4, desired, 4, &mut slices, &mut random);
    let of =
        |writes: Vec<SliceEvent>| -> Vec<usize> { writes.iter().map(|write| write.slice().endpoints.len()).collect() };
    assert_eq!(of(sync(endpoints(0..7))), [4, 3]);
    assert_eq!(of(sync(endpoints(0..8))), [4], "the second has room");
    let replaced: Vec<_> = endpoints(0..9).into_iter().filter(|endpoint| endpoint.pod != "pod-5").collect();
    assert_eq!(of(sync(replaced)), [4], "the slice that loses one gets the other");
}
