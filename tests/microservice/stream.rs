//! A reader of the service's events.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::{http::Connection, service::Service};

pub(crate) struct Stream(Connection);

impl Stream {
    /// Opens the stream; from the return on, nothing is missed.
    pub(crate) async fn open(service: &Service) -> Self {
        let mut connection = service.connect().await;
        connection.send("GET", "/events", "").await.expect("a request");
        let head = connection.head().await.expect("an answer");
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        Self(connection)
    }

    /// The next event that is as wanted, of those that come within a time.
    pub(crate) async fn find(&mut self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut others = Vec::new();
        let found = timeout(within, async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                if wanted(&event) {
                    return event;
                }
                others.push(event);
            }
        });
        match found.await {
            Ok(event) => event,
            Err(_) => panic!("not within {within:?}; there were only {others:?}"),
        }
    }

    /// The next event; `None` at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            // The lines between are the lengths of HTTP's chunks, comments, and ends of events.
            if let Some(data) = self.0.line().await.ok()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("an event is one JSON object"));
            }
        }
    }
}
