//! Compares the judgement of failed work with what the simulated server has committed.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::{runtime, time::timeout};
use tokio_postgres::{Client, Error};

use super::{
    Connection,
    server::{ErrorFields, Fault},
};
use crate::error::Applied;

/// One step of the work. All numbers that it inserts are different.
#[derive(Clone, Debug)]
enum Step {
    /// A simple query.
    Batch(String),
    /// A prepared statement.
    Execute(u32),
    /// A statement without a separate Parse.
    Typed(u32),
    Select,
    Copy(u32),
    AbandonedCopy(u32),
    /// Two statements in one `try_join!`. The second fails if the flag is set.
    Join(u32, u32, bool),
    /// A statement that is sent, but whose response is not awaited.
    Abandoned(u32),
}

async fn run(client: &Client, step: &Step) -> Result<(), Error> {
    let insert = |number: &u32| format!("INSERT {number}");
    match step {
        Step::Batch(text) => client.batch_execute(text).await,
        Step::Execute(number) => client.execute(&insert(number), &[]).await.map(drop),
        Step::Typed(number) => client.execute_typed(&insert(number), &[]).await.map(drop),
        Step::Select => client.batch_execute("SELECT").await,
        Step::Copy(number) => {
            let sink = client.copy_in::<_, Bytes>(&format!("COPY {number}")).await?;
            pin!(sink).as_mut().finish().await.map(drop)
        }
        Step::AbandonedCopy(number) => client.copy_in::<_, Bytes>(&format!("COPY {number}")).await.map(drop),
        Step::Join(first, second, fails) => {
            let (first, mut second) = (insert(first), insert(second));
            if *fails {
                second = "FAIL".to_owned();
            }
            let (first, second) = (client.batch_execute(&first), client.batch_execute(&second));
            // The second one is sent first in half of the cases.
            if *fails { tokio::try_join!(second, first) } else { tokio::try_join!(first, second) }.map(drop)
        }
        Step::Abandoned(number) => {
            let text = insert(number);
            drop(timeout(Duration::ZERO, client.batch_execute(&text)).await);
            Ok(())
        }
    }
}

/// Runs the work and returns its first error. If `stops` is false, runs the steps after an error too.
async fn run_all(client: &Client, steps: &[Step], stops: bool) -> Result<(), Error> {
    let mut first = Ok(());
    for step in steps {
        let result = run(client, step).await;
        if first.is_ok() {
            first = result;
        }
        if stops && first.is_err() {
            break;
        }
    }
    first
}

fn statement() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &["INSERT", "INSERT", "INSERT", "SELECT", "BEGIN", "COMMIT", "COMMIT AND CHAIN", "ROLLBACK", "FAIL"][..],
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(statement(), 1..5).prop_map(|all| Step::Batch(all.join(";"))),
        2 => Just(Step::Execute(0)),
        1 => Just(Step::Typed(0)),
        1 => Just(Step::Select),
        1 => Just(Step::Copy(0)),
        1 => Just(Step::AbandonedCopy(0)),
        2 => any::<bool>().prop_map(|fails| Step::Join(0, 0, fails)),
        1 => Just(Step::Abandoned(0)),
    ]
}

/// Gives each inserted row a number of its own.
fn numbered(steps: Vec<Step>) -> Vec<Step> {
    let mut last = 0;
    let mut next = || {
        last += 1;
        last
    };
    let mut number = |step| match step {
        Step::Batch(text) => {
            let number = |text: &str| if text == "INSERT" { format!("INSERT {}", next()) } else { text.to_owned() };
            Step::Batch(text.split(';').map(number).collect::<Vec<_>>().join(";"))
        }
        Step::Execute(_) => Step::Execute(next()),
        Step::Typed(_) => Step::Typed(next()),
        Step::Select => Step::Select,
        Step::Copy(_) => Step::Copy(next()),
        Step::AbandonedCopy(_) => Step::AbandonedCopy(next()),
        Step::Join(_, _, fails) => Step::Join(next(), next(), fails),
        Step::Abandoned(_) => Step::Abandoned(next()),
    };
    let mut all = Vec::new();
    for step in steps {
        all.push(number(step));
    }
    all
}

fn fields(codes: &'static [&'static str]) -> impl Strategy<Value = ErrorFields> {
    (prop::sample::select(codes), any::<bool>())
        .prop_map(|(sqlstate, untranslated)| ErrorFields { sqlstate, untranslated })
}

fn fault() -> impl Strategy<Value = Fault> {
    let ended = &["57P01", "08P01", "58000", "25006", "XX000"][..];
    prop_oneof![
        1 => Just(Fault::None),
        4 => fields(&["25006", "23505", "40001", "42501"]).prop_map(Fault::Error),
        2 => fields(&["08006", "57P01", "58000", "40003"]).prop_map(Fault::PoolerError),
        2 => (fields(ended), any::<bool>()).prop_map(|(fields, ready)| Fault::Fatal(fields, ready)),
        1 => fields(&["25006", "23505"]).prop_map(Fault::ErrorAndClose),
        2 => (0..40usize).prop_map(Fault::Close),
        2 => Just(Fault::StrayReady),
        1 => Just(Fault::Garbage),
    ]
}

#[test]
#[expect(clippy::print_stdout, reason = "the test prints how often it reached each result")]
fn work_is_never_judged_as_unapplied_if_the_server_has_committed_a_part_of_it() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let [denied, unknown, committed] = [const { AtomicUsize::new(0) }; 3];
    let cases: u32 = std::env::var("PODPOOL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3_000);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (
        prop::collection::vec(step(), 1..4).prop_map(numbered),
        fault(),
        0..14usize,
        prop_oneof![Just(1usize), 1..40usize, Just(4096)],
        any::<bool>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&strategy, |(steps, fault, after, piece, stops)| {
        runtime.block_on(async {
            let connection = Connection::open(piece, fault, after).await;
            let since = connection.record.outcome.work();
            let error = match timeout(Duration::from_secs(5), run_all(&connection.client, &steps, stops)).await {
                Ok(Err(error)) => error,
                Ok(Ok(())) => return Ok(()),
                Err(_) => return Err(TestCaseError::fail("the work does not end")),
            };
            if connection.record.may_settle(since, &error) {
                let settled = timeout(Duration::from_secs(5), connection.record.wait_until_idle()).await;
                prop_assert!(settled.is_ok(), "the connection does not settle");
            }
            let applied = connection.record.judge(since, &error, true).applied;
            let rows = connection.close().await;
            match applied {
                Applied::No => denied.fetch_add(1, Ordering::Relaxed),
                Applied::Unknown => unknown.fetch_add(1, Ordering::Relaxed),
            };
            committed.fetch_add(usize::from(!rows.is_empty()), Ordering::Relaxed);
            prop_assert!(
                applied == Applied::Unknown || rows.is_empty(),
                "`No` after {error:?}, but committed: {rows:?}"
            );
            Ok(())
        })
    });
    let [denied, unknown, committed] = [denied, unknown, committed].map(AtomicUsize::into_inner);
    println!("{denied} times `No`, {unknown} times `Unknown`; {committed} failed works had committed rows");
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(denied * 20 > unknown && committed > 0, "the test must reach both results");
}
