use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;

use super::*;

const COPY: &str = "COPY history (id) FROM STDIN";

#[tokio::test(start_paused = true)]
async fn rows_are_inserted_at_the_end_of_a_copy() {
    let server = primary().await;
    let (one, other) = (connect(&server).await, connect(&server).await);
    let mut rows = pin!(one.client.copy_in::<_, Bytes>(COPY).await.unwrap());
    rows.send("1\n2\n".into()).await.unwrap();
    assert_eq!(other.ids().await, [0_i64; 0]);
    assert_eq!(rows.finish().await.unwrap(), 2);
    assert_eq!(other.ids().await, [1, 2]);
    assert_eq!(one.ids().await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_rows_do_not_end_inserts_nothing() {
    let connected = connect(&primary().await).await;
    {
        let mut rows = pin!(connected.client.copy_in::<_, Bytes>(COPY).await.unwrap());
        rows.send("1\n".into()).await.unwrap();
    }
    assert_eq!(connected.ids().await, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_fails_on_invalid_rows_and_in_a_read_only_transaction() {
    let connected = connect(&primary().await).await;
    let mut rows = pin!(connected.client.copy_in::<_, Bytes>(COPY).await.unwrap());
    rows.send("one\n".into()).await.unwrap();
    assert_eq!(code(&rows.finish().await.unwrap_err()), ("22P02", false));
    connected.client.batch_execute("SET default_transaction_read_only = on").await.unwrap();
    let refused = connected.client.copy_in::<_, Bytes>(COPY).await.map(|_| ());
    assert_eq!(code(&refused.unwrap_err()), ("25006", false));
}

#[tokio::test(start_paused = true)]
async fn another_request_ends_a_copy_with_an_error() {
    let server = primary().await;
    let connected = connect(&server).await;
    // The driver does not expect a request for rows as the answer to a simple query.
    connected.client.batch_execute("/*call 1*/ COPY history FROM STDIN").await.unwrap_err();
    // The server takes the next request for a part of the rows, so the request has no response of its own.
    let next = connected.client.batch_execute("/*call 2*/ SELECT max(id) FROM history");
    tokio::time::timeout(Duration::from_secs(1), next).await.unwrap_err();
    let arrivals = server.cluster().history.arrivals();
    let arrivals: Vec<_> = arrivals.iter().map(|it| (it.comment.as_str(), it.in_copy)).collect();
    assert_eq!(arrivals, [("call 1", false), ("call 2", true)]);
}
