//! The drawn settings are valid for podpool, and their defaults are podpool's.

use std::time::Duration;

use podpool::Config;
use podpool_simulation::adversary::{Plan, Settings, Shape};

fn config(query: &str) -> Config {
    let url = format!("postgres://app@postgresql-svc/app?{query}");
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

#[test]
fn podpool_accepts_the_drawn_settings() {
    for seed in 0..2_000 {
        let settings = Plan::draw(seed, Shape::default()).settings;
        let limits = *config(&settings.query()).limits();
        assert_eq!(limits.pool_size, settings.pool_size as usize, "seed {seed}");
        assert_eq!(limits.max_lag, settings.max_lag, "seed {seed}");
    }
}

#[test]
fn the_defaults_are_the_same() {
    let (limits, ours) = (*config("").limits(), Settings::default());
    let durations: [(&str, Duration, Duration); 15] = [
        ("acquire_timeout", limits.acquire_timeout, ours.acquire_timeout),
        ("connect_timeout", limits.connect_timeout, ours.connect_timeout),
        ("tcp_user_timeout", limits.tcp_user_timeout, ours.tcp_user_timeout),
        ("max_lifetime", limits.max_lifetime, ours.max_lifetime),
        ("idle_timeout", limits.idle_timeout, ours.idle_timeout),
        ("ping_after", limits.ping_after, ours.ping_after),
        ("refresh_min", limits.refresh_min, ours.refresh_min),
        ("refresh_max", limits.refresh_max, ours.refresh_max),
        ("dns_timeout", limits.dns_timeout, ours.dns_timeout),
        ("dns_hedge", limits.dns_hedge, ours.dns_hedge),
        ("probe_interval", limits.probe_interval, ours.probe_interval),
        ("probe_timeout", limits.probe_timeout, ours.probe_timeout),
        ("detach_linger", limits.detach_linger, ours.detach_linger),
        ("drain_timeout", limits.drain_timeout, ours.drain_timeout),
        ("close_timeout", limits.close_timeout, ours.close_timeout),
    ];
    for (name, theirs, ours) in durations {
        assert_eq!(ours, theirs, "{name}");
    }
    let counts = [
        ("pool_size", limits.pool_size, ours.pool_size),
        ("min_idle", limits.min_idle, ours.min_idle),
        ("statement_cache_size", limits.statement_cache_size, ours.statement_cache_size),
        ("handshakes_per_pod", limits.handshakes_per_pod, ours.handshakes_per_pod),
        ("handshakes", limits.handshakes, ours.handshakes),
        ("outlier_consecutive", limits.outlier_consecutive as usize, ours.outlier_consecutive),
    ];
    for (name, theirs, ours) in counts {
        assert_eq!(ours as usize, theirs, "{name}");
    }
    assert_eq!(limits.reset.as_str(), ours.reset.as_str());
    assert_eq!(limits.lag_fallback.as_str(), ours.lag_fallback.as_str());
}
