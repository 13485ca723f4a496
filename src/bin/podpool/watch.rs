//! The command `watch`: shows the Pods again and again.

use std::{
    collections::{HashMap, VecDeque},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podpool::{Client, Endpoint, EndpointStatus, Event, Pool, Target};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    args::{Fault, Watch},
    diagnose::Severity,
    style,
    view::{self, Traffic},
};

/// Number of events that a view shows.
const EVENTS: usize = 12;
/// Time limit for a connection to each Pod, and for the query on it.
const QUERY: Duration = Duration::from_millis(500);
/// Sessions and transactions of all clients, which every user may read.
const TRAFFIC: &str = "\
    SELECT sum(numbackends)::int8, sum(xact_commit + xact_rollback)::int8 FROM pg_catalog.pg_stat_database";

pub(crate) async fn run(options: Watch, json: bool) -> Result<ExitCode, Fault> {
    let mut limits = *options.config.limits();
    // One connection to each Pod: several concurrent checkouts then reach all Pods.
    (limits.pool_size, limits.min_idle) = (1, 1);
    (limits.subset_size, limits.max_connections, limits.clients) = (None, None, None);
    let pool = Pool::builder(options.config.with_limits(limits)).build()?;
    let mut events = pool.events();
    // Failures are part of the view.
    drop(pool.wait_ready(Target::Any, options.interval.max(QUERY)).await);
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut watched, mut views) = (Watched::default(), 0);
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => watched.event(&event, json),
                Some(Err(lagged)) => watched.line(lagged.to_string(), json),
                None => break,
            },
            _ = ticks.tick() => {
                let traffic = watched.traffic(&pool).await;
                let (status, lines) = (pool.status(), watched.events.make_contiguous());
                if json {
                    println!("{}", view::json(&clock(), &status, &traffic, lines));
                } else if style::is_terminal() {
                    // Clears the screen and moves the cursor to its first cell (ECMA-48, 8.3.39 and 8.3.21).
                    print!("\x1b[2J\x1b[H{}", view::text(&clock(), &status, &traffic, lines));
                } else {
                    println!("{}", view::text(&clock(), &status, &traffic, &[]));
                }
                if json {
                    watched.events.clear();
                }
                views += 1;
                if options.count == Some(views) {
                    break;
                }
            }
        }
    }
    let is_served = pool.status().endpoints.iter().any(EndpointStatus::is_usable);
    pool.close().await;
    Ok(if is_served { Severity::Ok } else { Severity::Error }.exit_code())
}

/// The events and counters since the start.
#[derive(Default)]
struct Watched {
    events: VecDeque<String>,
    /// The transactions of each Pod at the previous view.
    previous: HashMap<Endpoint, (Instant, i64)>,
}

impl Watched {
    fn event(&mut self, event: &Event, json: bool) {
        self.line(event.to_string(), json);
    }

    fn line(&mut self, text: String, json: bool) {
        let line = format!("{} {text}", clock());
        if !json && !style::is_terminal() {
            println!("{line}");
        }
        self.events.push_back(line);
        if self.events.len() > EVENTS && !json {
            self.events.pop_front();
        }
    }

    /// Reads the sessions and transactions of each Pod that can be checked out.
    async fn traffic(&mut self, pool: &Pool) -> HashMap<Endpoint, Traffic> {
        let usable = pool.status().endpoints.iter().filter(|pod| pod.is_usable() && !pod.late).count();
        let mut clients = Vec::new();
        for _ in 0..usable {
            // While the connections of the previous iterations are in use, only the other Pods have one.
            let Ok(client) = pool.get_within(Target::Any, QUERY).await else { break };
            clients.push(client);
        }
        let queries: JoinSet<_> = clients.into_iter().map(read).collect();
        let mut traffic = HashMap::new();
        for (pod, sessions, transactions) in queries.join_all().await.into_iter().flatten() {
            let now = Instant::now();
            let previous = self.previous.insert(pod.clone(), (now, transactions));
            let rate = previous.map(|(at, before)| {
                let seconds = now.duration_since(at).as_secs_f64().max(0.001);
                (transactions - before).max(0) as f64 / seconds
            });
            traffic.insert(pod, Traffic { sessions, rate });
        }
        traffic
    }
}

async fn read(client: Client) -> Option<(Endpoint, i64, i64)> {
    let rows = timeout(QUERY, client.query_typed(TRAFFIC, &[])).await.ok()?.ok()?;
    let row = rows.first()?;
    Some((client.endpoint().clone(), row.try_get(0).ok()?, row.try_get(1).ok()?))
}

/// Returns the time of day in UTC.
fn clock() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
