//! Statements of several callers on one connection.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::Error;

use super::{
    Connection,
    server::{ErrorFields, Fault},
};

/// Number of statements that are sent together.
const STATEMENTS: u32 = 6;
/// More messages than the server sends for them.
const MESSAGES: usize = 60;

/// The number of the statement that the server refuses.
const REFUSED: u32 = 3;
const FATAL: ErrorFields = ErrorFields { sqlstate: "57P01", untranslated: true };

/// Sends prepared statements together. The connection fails at every message of the server, in several ways.
#[tokio::test]
async fn a_statement_is_committed_only_if_the_tap_has_counted_it() {
    let mut partly_written = 0;
    for after in 0..MESSAGES {
        for fault in [Fault::Close(0), Fault::Close(3), Fault::Fatal(FATAL, false), Fault::Fatal(FATAL, true)] {
            let connection = Connection::open(1 << 12, fault, after).await;
            connection.record.set_pipelined();
            let client = &connection.client;
            let text = |number| if number == REFUSED { "FAIL".to_owned() } else { format!("INSERT {number}") };
            let prepare = |number: u32| async move { client.prepare(&text(number)).await };
            let prepared = timeout(Duration::from_secs(10), join_all((1..=STATEMENTS).map(prepare))).await;
            let Ok(prepared) =
                prepared.expect("the statements are prepared").into_iter().collect::<Result<Vec<_>, _>>()
            else {
                continue; // the fault has hit a Parse
            };
            // The first polls are in the order of the numbers, so the requests are too.
            let execute = prepared.iter().map(|statement| client.execute(statement, &[]));
            let results = timeout(Duration::from_secs(10), join_all(execute)).await.expect("the statements end");
            let written = connection.record.statements_written();
            let numbered: Vec<_> = (1..=STATEMENTS).zip(results).collect();
            let numbers = |select: fn(&Result<u64, Error>) -> bool| -> BTreeSet<u32> {
                numbered.iter().filter(|(_, result)| select(result)).map(|(number, _)| *number).collect()
            };
            let succeeded = numbers(Result::is_ok);
            let committed = connection.close().await;
            let context = format!("{fault:?} after {after}: {written} written, committed {committed:?}");
            assert!(committed.iter().all(|number| *number <= written), "{context}");
            assert!(succeeded.is_subset(&committed), "{context}, succeeded {succeeded:?}");
            assert!(!committed.contains(&REFUSED), "{context}");
            partly_written += u32::from(committed.len() != succeeded.len());
        }
    }
    assert!(partly_written > 0, "in some cases, the response to a committed statement is lost");
}

#[tokio::test]
async fn an_open_transaction_ends_a_shared_connection_before_the_next_statement() {
    for pipelined in [false, true] {
        let connection = Connection::open(1 << 12, Fault::None, 0).await;
        if pipelined {
            connection.record.set_pipelined();
        }
        let client = &connection.client;
        let results = join_all(["BEGIN", "INSERT 1"].map(|text| client.batch_execute(text))).await;
        assert_eq!(results.iter().all(|result| result.is_err()), pipelined, "{results:?}");
        let later = client.batch_execute("INSERT 2").await;
        assert_eq!(later.is_err(), pipelined);
        assert_eq!(connection.record.has_ended(), pipelined);
        assert!(!connection.was_lost(), "the statement is to blame, not the Pod");
        assert_eq!(connection.close().await, BTreeSet::new());
    }
}

#[tokio::test]
async fn each_statement_on_a_shared_connection_is_counted_without_a_duration() {
    let connection = Connection::open(1 << 12, Fault::None, 0).await;
    connection.record.set_pipelined();
    let before = connection.record.answered();
    for _ in 0..5 {
        let results = join_all((1..=4).map(|_| connection.client.batch_execute("SELECT"))).await;
        assert!(results.iter().all(Result::is_ok));
    }
    assert_eq!(connection.record.answered() - before, 20);
    assert_eq!(connection.record.warm().0, 0);
    connection.close().await;
}
