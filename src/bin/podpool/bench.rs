//! The command `bench`: executes a statement in several tasks, and measures checkouts and statements.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode, sync::Arc, time::Duration};

use podpool::{Kind, Pool};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    args::{Bench, Fault},
    diagnose::Severity,
    service, style,
};

/// Pause of a task after a failure.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn run(options: Bench, json: bool) -> Result<ExitCode, Fault> {
    let Bench { config, duration, tasks, sql } = options;
    let url = service::url(&config);
    let (target, within) = (config.target(), config.limits().acquire_timeout);
    let pool = Pool::builder(config).build()?;
    if let Err(error) = pool.wait_ready(target, within).await {
        match json {
            true => println!("{:#}", json!({ "url": url, "error": error.to_string() })),
            false => eprintln!("podpool: {error}\n`podpool check` explains the failure"),
        }
        return Ok(Severity::Error.exit_code());
    }
    if !json {
        println!("podpool bench {url}: {tasks} tasks, {} s, `{sql}`, target {target}\n", duration.as_secs_f64());
    }
    let sql: Arc<str> = sql.into();
    let (began, mut workers) = (Instant::now(), JoinSet::new());
    for _ in 0..tasks {
        workers.spawn(work(pool.clone(), sql.clone(), began + duration));
    }
    let mut total = Measured::default();
    workers.join_all().await.into_iter().for_each(|measured| total.add(measured));
    let took = began.elapsed();
    pool.close().await;
    total.checkouts.sort_unstable();
    total.statements.sort_unstable();
    if json {
        println!("{:#}", total.json(&url, took));
    } else {
        print!("{}", total.text(took));
    }
    let has_failed = !total.errors.is_empty() || total.statements.is_empty();
    Ok(if has_failed { Severity::Error } else { Severity::Ok }.exit_code())
}

async fn work(pool: Pool, sql: Arc<str>, until: Instant) -> Measured {
    let mut measured = Measured::default();
    while Instant::now() < until {
        let began = Instant::now();
        let failure = match pool.get().await {
            Err(error) => Some((error.kind(), error.to_string())),
            Ok(client) => {
                let ready = Instant::now();
                // The statement is not named, because not every pooler supports named ones.
                match client.query_typed(&sql, &[]).await {
                    Err(error) => {
                        let server = error.as_db_error().map(ToString::to_string);
                        Some((Kind::Query, server.unwrap_or_else(|| error.to_string())))
                    }
                    Ok(_) => {
                        measured.checkouts.push(micros(ready - began));
                        measured.statements.push(micros(ready.elapsed()));
                        *measured.pods.entry(client.endpoint().to_string()).or_default() += 1;
                        None
                    }
                }
            }
        };
        if let Some((kind, text)) = failure {
            let (number, last) = measured.errors.entry(kind.as_str()).or_default();
            (*number, *last) = (*number + 1, text);
            sleep(PAUSE).await;
        }
    }
    measured
}

fn micros(duration: Duration) -> u32 {
    duration.as_micros().try_into().unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Measured {
    /// Times in microseconds.
    checkouts: Vec<u32>,
    statements: Vec<u32>,
    /// Statements on each Pod.
    pods: BTreeMap<String, u64>,
    /// The number of errors of each kind, and the last one.
    errors: BTreeMap<&'static str, (u64, String)>,
}

/// The printed quantiles.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Returns a quantile of sorted values, in milliseconds.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).map_or(0.0, |micros| f64::from(*micros) / 1e3)
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.checkouts.extend(other.checkouts);
        self.statements.extend(other.statements);
        other.pods.into_iter().for_each(|(pod, number)| *self.pods.entry(pod).or_default() += number);
        for (kind, (number, last)) in other.errors {
            let entry = self.errors.entry(kind).or_default();
            *entry = (entry.0 + number, last);
        }
    }

    fn rate(&self, took: Duration) -> f64 {
        self.statements.len() as f64 / took.as_secs_f64()
    }

    fn text(&self, took: Duration) -> String {
        let mut out = format!("{} statements, {:.0} per second\n\n", self.statements.len(), self.rate(took));
        let row = |name: &str, sorted: &[u32]| {
            let [p50, p90, p99, p999, max] = QUANTILES.map(|(_, part)| format!("{:.3} ms", quantile(sorted, part)));
            [name.to_owned(), p50, p90, p99, p999, max]
        };
        let [p50, p90, p99, p999, max] = QUANTILES.map(|(name, _)| name);
        let rows = [row("checkout", &self.checkouts), row("statement", &self.statements)];
        out.push_str(&style::table(["TIME", p50, p90, p99, p999, max], &rows));
        let share = |number: u64| format!("{:.1} %", 100.0 * number as f64 / self.statements.len() as f64);
        let pods = self.pods.iter().map(|(pod, number)| [pod.clone(), number.to_string(), share(*number)]);
        let _ = write!(out, "\n{}", style::table(["POD", "STATEMENTS", "SHARE"], &pods.collect::<Vec<_>>()));
        for (kind, (number, last)) in &self.errors {
            let _ = write!(out, "\n{number} errors of kind {kind}; the last one: {last}\n");
        }
        out
    }

    fn json(&self, url: &str, took: Duration) -> Value {
        let times = |sorted: &[u32]| -> Value {
            QUANTILES.iter().map(|(name, part)| ((*name).to_owned(), json!(quantile(sorted, *part)))).collect()
        };
        let errors = self
            .errors
            .iter()
            .map(|(kind, (number, last))| ((*kind).to_owned(), json!({ "count": number, "last": last })));
        json!({
            "url": url, "seconds": took.as_secs_f64(), "statements": self.statements.len(),
            "statements_per_second": self.rate(took), "checkout_ms": times(&self.checkouts),
            "statement_ms": times(&self.statements), "pods": self.pods, "errors": errors.collect::<Value>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let sorted: Vec<_> = (1..=1000).map(|value| value * 1000).collect();
        let found = QUANTILES.map(|(_, part)| quantile(&sorted, part));
        assert_eq!(found, [500.0, 900.0, 990.0, 999.0, 1000.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
