//! Plans that are executed: without faults, twice, and those that once failed.

use podpool_simulation::{
    adversary::{Caller, Plan, Shape, Target, Work},
    properties::{Event, Outcome},
    report,
    run::run,
    tools,
};

#[test]
fn without_faults_every_call_succeeds_and_no_property_is_violated() {
    let writes = Caller { work: Work::Insert, target: Target::Primary, ..Caller::default() };
    let reads = Caller { client: 1, work: Work::Checkout, target: Target::Standby, ..Caller::default() };
    let Shape { active, tail } = Shape::default();
    let plan = Plan { seed: 1, active, tail, callers: vec![writes, reads], ..Plan::default() };
    let finished = run(&plan);
    assert_eq!(finished.violations, []);
    assert!(finished.history.healed.is_some());
    let outcomes = finished.history.records.iter().filter_map(|record| match &record.event {
        Event::Ended { outcome, .. } => Some(outcome),
        _ => None,
    });
    let outcomes: Vec<_> = outcomes.collect();
    let cancelled = outcomes.iter().filter(|outcome| ***outcome == Outcome::Cancelled).count();
    // Only calls that run at the end of the plan are cancelled.
    assert!(outcomes.len() > 1000 && cancelled <= 2, "{} calls, {cancelled} cancelled", outcomes.len());
    let failed: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed { .. })).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..5 {
        let [one, other] = [(); 2].map(|()| {
            let finished = run(&tools::plan(seed));
            format!("{}{:#?}", report::table(finished.report(), &[]), finished.history)
        });
        let difference = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert!(one == other, "seed {seed}: {difference:?}");
    }
}

#[test]
fn the_corpus_violates_no_property() {
    assert!(tools::corpus());
}

#[test]
fn an_expired_certificate_fails_only_new_sessions() {
    let text = "podpool-plan 1
seed 42
active 10.000
tail 20.000
topology tls=yes
caller work=insert every=50ms target=primary concurrency=2
caller work=read every=50ms target=any
fault 2.000..6.500 secret.certificate-expired pod=pod-1
fault 3.000..3.000 server.terminate pod=pod-1 share=100%
fault 4.000..4.000 secret.certificate-renewed pod=pod-2
fault 5.000..5.000 server.terminate pod=pod-2 share=100%
";
    let finished = run(&text.parse().expect("a valid plan"));
    assert_eq!(finished.violations, []);
    let times = |text: &str| {
        let events = finished.events.iter().filter(|event| event.text.contains(text));
        events.map(|event| event.at.as_secs_f64()).collect::<Vec<_>>()
    };
    let rejected = times("the server's certificate has expired");
    assert!(!rejected.is_empty() && rejected.iter().all(|at| (3.0..7.0).contains(at)), "{rejected:?}");
    assert!(times("certificate verified").iter().any(|at| *at > 5.0));
}
