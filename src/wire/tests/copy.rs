use bytes::Bytes;

use super::{
    Connection,
    server::{ErrorFields, Fault},
};

const REFUSED: Fault = Fault::Error(ErrorFields { sqlstate: "42501", untranslated: true });

#[tokio::test]
async fn removes_the_second_ready_after_a_refused_copy_however_the_reads_are_split() {
    for piece in 1..80 {
        // The COPY is refused after the responses to its Parse, Describe, Sync and Bind.
        let connection = Connection::open(piece, REFUSED, 5).await;
        let client = &connection.client;
        let refused = client.copy_in::<_, Bytes>("COPY 1").await.err().expect("the COPY is refused");
        assert_eq!(refused.code().map(|code| code.code()), Some("42501"), "{refused:?}");
        let (failed, succeeded) = tokio::join!(client.batch_execute("FAIL"), client.batch_execute("INSERT 2"));
        assert_eq!(failed.err().and_then(|error| Some(error.code()?.code().to_owned())).as_deref(), Some("23505"));
        succeeded.expect("the statement succeeds");
        client.execute("INSERT 3", &[]).await.expect("the statement succeeds");
        connection.record.wait_until_idle().await;
        assert!(connection.record.is_clean(), "pieces of {piece} bytes");
        assert!(!connection.was_lost());
        assert_eq!(connection.close().await.into_iter().collect::<Vec<_>>(), [2, 3], "pieces of {piece} bytes");
    }
}

#[tokio::test]
async fn a_copy_that_succeeds_keeps_its_response() {
    for piece in 1..20 {
        let connection = Connection::open(piece, Fault::None, 0).await;
        let client = &connection.client;
        let sink = client.copy_in::<_, Bytes>("COPY 1").await.expect("the COPY begins");
        let mut sink = Box::pin(sink);
        assert_eq!(sink.as_mut().finish().await.expect("the COPY succeeds"), 1);
        client.batch_execute("INSERT 3").await.expect("the statement succeeds");
        connection.record.wait_until_idle().await;
        assert!(connection.record.is_clean(), "pieces of {piece} bytes");
        assert_eq!(connection.close().await.into_iter().collect::<Vec<_>>(), [1, 3]);
    }
}

#[tokio::test]
async fn a_copy_that_fails_after_it_has_begun_ends_its_connection() {
    for piece in 1..20 {
        let connection = Connection::open(piece, Fault::None, 0).await;
        drop(connection.client.copy_in::<_, Bytes>("COPY 2").await.expect("the COPY begins"));
        let error = connection.client.batch_execute("INSERT 3").await.expect_err("the connection has ended");
        assert!(error.is_closed(), "pieces of {piece} bytes: {error:?}");
        assert!(!connection.was_lost());
        assert!(!connection.close().await.contains(&2));
    }
}

#[tokio::test]
async fn a_connection_ends_if_the_server_sends_a_second_ready() {
    for piece in [1, 6, 100] {
        let connection = Connection::open(piece, Fault::StrayReady, 1).await;
        // Fails if both messages arrive in one read.
        drop(connection.client.batch_execute("INSERT 1").await);
        let error = connection.client.batch_execute("FAIL").await.expect_err("the connection has ended");
        assert!(error.as_db_error().is_none(), "{error:?}");
        assert!(connection.close().await.contains(&1));
    }
}
