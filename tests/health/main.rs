//! Injects faults into real servers under 500 requests per second, with default settings, and measures the effects.
//!
//! - [`faults`]: a killed Pod, fast and smart shutdown, terminated backends, and reset connections, each with and
//!   without the Pod's removal from DNS.
//! - [`unresponsive`]: a Pod that hangs (SIGSTOP), under load, with an idle pool, and after its removal from DNS.
//! - [`dropped_packets`]: a Pod whose packets are all dropped.
//! - [`failover`]: a killed primary and a promotion, a former primary that restarts, and a planned switchover.
//! - [`fencing`]: a restore of an older timeline, a former primary that runs next to the new one, the absence of
//!   reports in ordinary failovers, and servers that refuse parts of the health check.
//! - [`lag`]: a standby whose replay is paused, an idle or dead primary, and standbys that all lag.
//! - [`clocks`]: standbys whose clocks are behind and ahead.
//! - [`throttled`]: a standby that is throttled to a tenth of its processor time.
//! - [`shutdown`]: the last checkout after a fast shutdown, and the end of a smart shutdown after removal from DNS.
//! - [`shares`]: the distribution of requests across the remaining Pods after a Pod is killed.
//!
//! Each test prints its measurements. `scripts/failover-table` collects the lines that [`setup::row`] prints.
#![allow(clippy::print_stdout, reason = "tests print their measurements")]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

#[path = "../common/mod.rs"]
mod common;
mod ledger;
#[path = "../common/namespace.rs"]
mod namespace;
mod proxy;
mod setup;

mod clocks;
mod dropped_packets;
mod failover;
mod faults;
mod fencing;
mod lag;
mod shares;
mod shutdown;
mod throttled;
mod unresponsive;
