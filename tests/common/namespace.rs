//! Runs a test in its own network namespace, so that the packets it drops do not affect other tests.
//!
//! The test binary runs itself again inside the namespace, with only that test selected.
#![allow(dead_code, reason = "each test binary uses a subset")]

use std::process::{Command, Output, Stdio};

/// Environment variable that is set only for processes inside the namespace.
const INSIDE: &str = "PODPOOL_TEST_NAMESPACE";

/// Returns an `unshare` command that creates a network namespace, within a new user namespace unless run as root.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if rustix::process::geteuid().is_root() {
        unshare.arg("--net");
    } else {
        unshare.args(["--user", "--map-current-user", "--net", "--keep-caps"]);
    }
    unshare
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}, {}\n{}", output.status, stdout.trim(), stderr.trim()))
        }
    }
}

/// Applies nftables rules. Must be called only inside the namespace.
pub fn nft(rules: &str) {
    run(Command::new("nft").arg(rules)).expect("the nftables rules are applied");
}

/// Returns true if this process runs inside the namespace.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Returns true if called inside the namespace, after bringing up the loopback interface.
///
/// Outside the namespace, runs the test named `test` in a new namespace, prints its output, and returns false. Panics
/// if that run fails. If the system does not support namespaces, skips the test, or panics if `CI=true`.
pub async fn inside(test: &'static str) -> bool {
    if is_inside() {
        run(Command::new("ip").args(["link", "set", "lo", "up"])).expect("the loopback interface is up");
        return true;
    }
    let able = run(unshare().args(["sh", "-c", "ip link set lo up && nft list ruleset"]));
    if let Err(cause) = able {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "cannot create a network namespace with nftables: {cause}"
        );
        println!("skipped: this test needs a network namespace, `ip` and `nft`: {cause}");
        return false;
    }
    let inside = tokio::task::spawn_blocking(move || {
        let program = std::env::current_exe().expect("the test binary has a path");
        run(unshare().arg(program).args([test, "--exact", "--nocapture"]).env(INSIDE, "1"))
    });
    let output = inside.await.expect("the thread does not panic").unwrap_or_else(|error| panic!("{error}"));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    false
}
