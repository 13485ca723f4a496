use super::*;

const MS: Duration = Duration::from_millis(1);

/// Returns the load of a connection to a local server.
fn load() -> (Load<char>, Instant) {
    (Load::new(None, Some(Duration::ZERO)), Instant::now())
}

fn send(load: &mut Load<char>, item: char, now: Instant) -> u32 {
    assert!(load.reserve(usize::MAX));
    load.send(now, |_| item);
    load.last()
}

#[test]
fn places_are_limited_to_the_depth() {
    let (mut load, now) = load();
    assert!(load.reserve(2) && load.reserve(2) && !load.reserve(2));
    let first = 1;
    assert_eq!(load.send(now, |number| if number == first { 'a' } else { '?' }), 'a');
    assert_eq!(load.in_flight(), 2);
    load.release();
    assert!(load.reserve(2) && !load.reserve(2));
    load.release();
    assert_eq!(load.end(first, now), Some('a'));
    assert_eq!((load.end(first, now), load.in_flight(), load.is_answered()), (None, 0, true));
    assert!(!load.reserve(0));
    send(&mut load, 'b', now);
    assert_eq!((load.take_all(), load.in_flight()), (vec!['b'], 0));
}

#[test]
fn a_statement_runs_from_the_end_of_the_one_before() {
    let (mut load, start) = load();
    let first = send(&mut load, 'a', start);
    let second = send(&mut load, 'b', start);
    assert!(!load.is_slow(start + 5 * MS));
    assert!(load.is_slow(start + 6 * MS));
    load.end(first, start + 6 * MS);
    assert!(!load.is_slow(start + 11 * MS), "the second statement has run for 5 ms");
    let slow_after = load.slow_after();
    assert_eq!(slow_after, 24 * MS, "four times the only sample");
    assert!(load.is_slow(start + 6 * MS + slow_after + MS));
    load.end(second, start + 7 * MS);
    assert!(!load.is_slow(start + 1000 * MS), "nothing runs");
}

#[test]
fn the_end_of_a_later_statement_shows_that_earlier_ones_have_ended() {
    let (mut load, start) = load();
    let numbers = ['a', 'b', 'c'].map(|item| send(&mut load, item, start));
    load.end(numbers[1], start + MS);
    assert!(load.blocked(start + 7 * MS).next().is_none(), "the first has ended and the third runs");
    assert!(load.is_slow(start + 7 * MS), "the third has run for 6 ms");
    assert_eq!(load.in_flight(), 2, "the end of the first was not reported yet");
    load.end(numbers[0], start + 8 * MS);
    load.end(numbers[2], start + 8 * MS);
    assert!(load.is_answered());
}

#[test]
fn statements_behind_a_slow_one_are_blocked() {
    let (mut load, start) = load();
    let first = send(&mut load, 'a', start);
    send(&mut load, 'b', start + 4 * MS);
    send(&mut load, 'c', start + 4 * MS);
    assert_eq!(load.blocked(start + 5 * MS).count(), 0);
    assert_eq!(load.blocked(start + 6 * MS).copied().collect::<String>(), "bc");
    assert_eq!(load.overdue(start + 6 * MS).copied().collect::<String>(), "a");
    assert_eq!(load.overdue(start + 10 * MS).copied().collect::<String>(), "abc");
    load.end(first, start + 6 * MS);
    assert_eq!(load.blocked(start + 7 * MS).count(), 0);
}

#[test]
fn a_configured_limit_replaces_the_percentile() {
    let mut load = Load::new(Some(50 * MS), None);
    let start = Instant::now();
    let first = send(&mut load, 'a', start);
    load.end(first, start + MS);
    send(&mut load, 'b', start + MS);
    assert_eq!(load.slow_after(), 50 * MS);
    assert!(!load.is_slow(start + 51 * MS));
    assert!(load.is_slow(start + 52 * MS));
}

#[test]
fn an_abandoned_statement_is_cancelled_only_while_it_runs() {
    let (mut load, start) = load();
    let first = send(&mut load, 'a', start);
    let second = send(&mut load, 'b', start);
    load.abandon(second);
    assert!(load.must_cancel(start + 500 * MS).is_none(), "the first statement runs, and its caller waits");
    load.end(first, start + 500 * MS);
    assert!(load.must_cancel(start + 599 * MS).is_none());
    assert!(load.must_cancel(start + 600 * MS).is_some());
    load.cancel(start + 600 * MS);
    assert!(load.must_cancel(start + 1_599 * MS).is_none());
    assert!(load.must_cancel(start + 1_600 * MS).is_some(), "the request had no effect");
    let third = send(&mut load, 'c', start + 1_600 * MS);
    load.end(second, start + 1_600 * MS + MS);
    load.abandon(third);
    assert!(load.must_cancel(start + 1_650 * MS).is_none());
    assert!(load.must_cancel(start + 1_701 * MS).is_some(), "a new statement gets its own time");
    assert_eq!(load.cancels(), 1);
}

#[test]
fn numbers_wrap_around() {
    let (mut load, now) = load();
    (load.last, load.ended) = (u32::MAX - 1, u32::MAX - 1);
    let numbers = ['a', 'b', 'c'].map(|item| send(&mut load, item, now));
    assert_eq!(numbers, [u32::MAX, 0, 1]);
    assert_eq!(load.running().map(|sent| sent.item), Some('a'));
    load.end(0, now);
    assert_eq!(load.running().map(|sent| sent.item), Some('c'));
    assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX) && !is_before(7, 7));
}

#[test]
fn the_percentile_follows_the_samples() {
    let mut percentile = Percentile::default();
    assert_eq!(percentile.value(), Duration::ZERO);
    // One sample in ten takes 20 ms, the others from 1 to 9 ms. The 95th percentile is 20 ms.
    for n in 0..5_000u32 {
        percentile.add(if n % 10 == 0 { 20 * MS } else { MS * (n % 10) });
    }
    let value = percentile.value();
    assert!((15 * MS..26 * MS).contains(&value), "{value:?}");
    for _ in 0..5_000 {
        percentile.add(MS);
    }
    assert!(percentile.value() < 2 * MS, "{:?}", percentile.value());
    for _ in 0..10_000 {
        percentile.add(Duration::ZERO);
    }
    assert!(percentile.value() >= Duration::from_micros(1));
}

#[test]
fn a_statement_that_is_being_prepared_can_be_slow() {
    let (mut load, start) = load();
    let (first, second) = (1, 2);
    load.begin_prepare(first, start);
    load.begin_prepare(second, start + 3 * MS);
    assert!(!load.is_slow(start + 5 * MS));
    assert!(load.is_slow(start + 6 * MS));
    assert!(load.prepares(first, start + 6 * MS) && !load.prepares(second, start + 6 * MS));
    load.end_prepare(first, start + 6 * MS);
    assert!(!load.is_slow(start + 11 * MS), "the second is prepared for 5 ms");
    assert!(load.is_slow(start + 12 * MS));
    assert!(load.prepares(second, start + 12 * MS));
    send(&mut load, 'a', start);
    assert!(!load.prepares(second, start + 12 * MS), "a slow statement runs");
    load.end(1, start + 12 * MS);
    load.end_prepare(second, start + 12 * MS);
    assert!(!load.is_slow(start + 1_000 * MS));
}

#[test]
fn the_first_sample_does_not_hide_slow_statements() {
    let (mut load, start) = load();
    let number = send(&mut load, 'a', start);
    load.end(number, start + 10_000 * MS);
    assert_eq!(load.slow_after(), 400 * MS);
}

#[test]
fn a_long_round_trip_is_not_slow() {
    let (mut load, start) = (Load::new(None, None), Instant::now());
    send(&mut load, 'a', start);
    assert!(!load.is_slow(start + 105 * MS), "the round trip is not known yet");
    assert!(load.is_slow(start + 106 * MS));
    load.end(1, start + 20 * MS);
    // The responses arrive in bursts: most statements take no time after the one before.
    for round in 1..100 {
        let sent = start + 20 * MS * round;
        let numbers = [(); 40].map(|()| send(&mut load, 'b', sent));
        assert!(!load.is_slow(sent + 20 * MS), "round {round}");
        for number in numbers {
            load.end(number, sent + 20 * MS);
        }
    }
    assert_eq!(load.slow_after(), 45 * MS);
    assert!(load.waits_for_statements());
    let sent = start + 3_000 * MS;
    let numbers = [(); 100].map(|()| send(&mut load, 'c', sent));
    for number in numbers {
        load.end(number, sent + 50 * MS);
    }
    assert!(!load.waits_for_statements(), "the server is busy");
}

#[test]
fn a_response_is_received_for_a_caller_that_does_not_poll_whatever_counts_as_slow() {
    let (mut load, start) = (Load::new(Some(Duration::from_secs(60)), None), Instant::now());
    send(&mut load, 'a', start);
    assert_eq!(load.overdue(start + 50 * MS).count(), 0);
    assert_eq!(load.overdue(start + 51 * MS).count(), 1);
}
