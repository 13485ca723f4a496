use std::{
    convert::Infallible,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use podpool::{Event, Lagged, Pool};
use serde_json::{Value, json};
use tokio::select;

use crate::{app::App, endpoints::address, text::first_line};

/// Streams the pool's events from the time of the request until the shutdown, as server-sent events. Each event is one
/// JSON object.
pub(crate) async fn events(State(app): State<App>) -> impl IntoResponse {
    let events = app.pool.events();
    let first = sse::Event::default().comment("the pool's events from now on").retry(Duration::from_secs(1));
    let rest = stream::unfold((app, events), |(app, mut events)| async move {
        let event = select! {
            event = events.next() => event?,
            () = app.drain.closing() => return None,
        };
        let event = sse::Event::default().data(object(&app.pool, event).to_string());
        Some((Ok(event), (app, events)))
    });
    let stream = stream::iter([Ok::<_, Infallible>(first)]).chain(rest);
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}

fn object(pool: &Pool, event: Result<Event, Lagged>) -> Value {
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let event = match event {
        Ok(event) => event,
        Err(lagged) => {
            return json!({ "event": "lagged", "at_ms": at_ms, "lost": lagged.lost, "text": lagged.to_string() });
        }
    };
    let mut object = json!({ "event": event.name(), "at_ms": at_ms, "text": first_line(&event.to_string()) });
    if let Some(endpoint) = event.endpoint() {
        object["addr"] = address(pool, endpoint).into();
        object["pod"] = endpoint.name().into();
    }
    match &event {
        Event::StateChanged { from, to, cause, .. } => {
            object["from"] = (*from).into();
            object["to"] = (*to).into();
            object["cause"] = cause.as_deref().map(first_line).into();
        }
        Event::RoleChanged { from, to, .. } => {
            object["from"] = from.as_str().into();
            object["to"] = to.as_str().into();
        }
        Event::EndpointFenced { cause, .. } | Event::ResolveFailed { cause, .. } => {
            object["cause"] = first_line(cause).into()
        }
        _ => {}
    }
    object
}
