//! Pool events: print every event, and raise an alarm when a Pod is ejected, until Ctrl-C or SIGTERM.
//!
//! `DATABASE_URL=postgres://… cargo run --example observer`, then kill a Pod.

use podpool::{Config, Event, Lagged, Observer, Pool, Role};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// An observer that forwards events to a channel as text. An observer must not block, so this observer drops and counts
/// events while the channel is full.
struct Forward {
    to: mpsc::Sender<String>,
    dropped: usize,
}

impl Forward {
    fn send(&mut self, line: String) {
        let line = if self.dropped > 0 { format!("{line} ({} earlier lines dropped)", self.dropped) } else { line };
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
                self.send(format!("ALARM: {endpoint} was ejected: {}", cause.as_deref().unwrap_or("no cause")));
            }
            Event::RoleChanged { endpoint, to: Role::Primary, .. } => {
                self.send(format!("{endpoint} is now the primary"))
            }
            other => self.send(other.to_string()),
        }
    }

    fn lagged(&mut self, lagged: Lagged) {
        self.send(lagged.to_string());
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
            // Unlike the observer, this task may block, for example on standard output.
            Some(line) = lines.recv() => println!("{line}"),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    pool.close().await;
    // The closed pool drops the observer, which closes the channel.
    while let Some(line) = lines.recv().await {
        println!("{line}");
    }
    println!("closed");
    Ok(())
}
