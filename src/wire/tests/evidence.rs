use super::{
    Connection,
    server::{ErrorFields, Fault},
};

const POOLER: ErrorFields = ErrorFields { sqlstate: "08P01", untranslated: false };
const SHUTDOWN: ErrorFields = ErrorFields { sqlstate: "57P01", untranslated: true };

#[tokio::test]
async fn only_an_unannounced_end_of_the_connection_is_a_loss() {
    // A simple query is answered with CommandComplete and ReadyForQuery. The fault replaces one of the two.
    for (fault, after, lost) in [
        (Fault::Close(0), 0, true),
        (Fault::Close(3), 1, true),
        (Fault::StrayReady, 1, true),
        (Fault::Garbage, 0, false),
        (Fault::ErrorAndClose(POOLER), 0, false),
        (Fault::Fatal(POOLER, false), 0, false),
        (Fault::Fatal(POOLER, true), 0, false),
        (Fault::Fatal(SHUTDOWN, false), 0, false),
        (Fault::Fatal(SHUTDOWN, true), 1, false),
    ] {
        for piece in [1, 7, 1000] {
            let mut connection = Connection::open(piece, fault, after).await;
            drop(connection.client.batch_execute("INSERT 1").await);
            drop(connection.client.batch_execute("INSERT 2").await);
            (&mut connection.driver).await.expect("the driver ends");
            assert_eq!(connection.was_lost(), lost, "{fault:?} after {after} messages in pieces of {piece} bytes");
            let server_ended = connection.server_ended();
            assert_eq!(
                server_ended,
                matches!(fault, Fault::Fatal(ErrorFields { untranslated: true, .. }, _)),
                "{fault:?}"
            );
        }
    }
}
