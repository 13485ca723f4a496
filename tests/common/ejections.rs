//! Collects the ejections of a pool's Pods.

use std::sync::{Arc, Mutex};

use podpool::{Event, Pool};

/// Collects the changes to the state `ejected`.
pub fn ejections(pool: &Pool) -> Arc<Mutex<Vec<String>>> {
    let (mut events, found) = (pool.events(), Arc::new(Mutex::new(Vec::new())));
    let ejections = found.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Ok(event @ Event::StateChanged { to: "ejected", .. }) => {
                    ejections.lock().unwrap().push(event.to_string());
                }
                Ok(_) => {}
                Err(lagged) => ejections.lock().unwrap().push(lagged.to_string()),
            }
        }
    });
    found
}
