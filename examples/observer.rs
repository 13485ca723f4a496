//! What happens to the set of Pods, as it happens, until Ctrl-C or SIGTERM.
//!
//! `DATABASE_URL=postgres://… cargo run --example observer`, and kill a Pod.

use podpool::{Config, Event, Lagged, Observer, Pool, Role};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Sends the events on. It must not block, so what does not fit is dropped, and said so.
struct Forward {
    to: mpsc::Sender<String>,
    dropped: usize,
}

impl Forward {
    fn say(&mut self, line: String) {
        let line = if self.dropped > 0 { format!("{line} ({} lines were dropped before)", self.dropped) } else { line };
        match self.to.try_send(line) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }
}

impl Observer for Forward {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StateChanged { endpoint, to: "ejected", cause, .. } => {
                self.say(format!("ALARM: {endpoint} is out: {}", cause.as_deref().unwrap_or("no cause")));
            }
            Event::RoleChanged { endpoint, to: Role::Primary, .. } => self.say(format!("{endpoint} is primary now")),
            other => self.say(other.to_string()),
        }
    }

    fn lagged(&mut self, lagged: Lagged) {
        self.say(lagged.to_string());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let (to, mut lines) = mpsc::channel(64);
    let pool = Pool::builder(config).observer(Forward { to, dropped: 0 }).build()?;
    loop {
        select! {
            // What may take its time, such as writing, is done here.
            Some(line) = lines.recv() => println!("{line}"),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    pool.close().await;
    // The channel ends with the observer, and the observer with the pool.
    while let Some(line) = lines.recv().await {
        println!("{line}");
    }
    println!("the end");
    Ok(())
}
