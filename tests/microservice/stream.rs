//! A client for the service's server-sent events.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::{http::Connection, service::Service};

pub(crate) struct EventStream(Connection);

impl EventStream {
    /// Opens the stream. It delivers every event that occurs after this function returns.
    pub(crate) async fn open(service: &Service) -> Self {
        let mut connection = service.connect().await;
        connection.send("GET", "/events", "").await.expect("the request is sent");
        let head = connection.head().await.expect("the service responds");
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        Self(connection)
    }

    /// Waits up to `limit` for an event that meets the condition.
    pub(crate) async fn find(&mut self, limit: Duration, condition: impl Fn(&Value) -> bool) -> Value {
        let mut others = Vec::new();
        let found = timeout(limit, async {
            loop {
                let event = self.next().await.expect("the stream is open");
                if condition(&event) {
                    return event;
                }
                others.push(event);
            }
        });
        match found.await {
            Ok(event) => event,
            Err(_) => panic!("no event met the condition within {limit:?}; other events: {others:?}"),
        }
    }

    /// Waits for the next event. Returns `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            // The other lines are HTTP chunk sizes, comments, and the empty lines after events.
            if let Some(data) = self.0.line().await.ok()?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("the event is one JSON object"));
            }
        }
    }
}
