//! A network namespace of a test's own, made by running the test once more inside it: what happens to packets there
//! happens to nobody else.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::process::{Command, Output, Stdio};

/// Set inside the namespace.
const INSIDE: &str = "PODPOOL_TEST_NAMESPACE";

/// `unshare` with a network of its own, as root, or as an ordinary user who is allowed to.
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
            let said = String::from_utf8_lossy(&output.stdout);
            let cause = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}, {}\n{}", output.status, said.trim(), cause.trim()))
        }
    }
}

/// nftables, inside.
pub fn nft(rules: &str) {
    run(Command::new("nft").arg(rules)).expect("nftables");
}

/// Whether this is the inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// [`is_inside`], and ready for use. Outside, runs the test of this name there, prints what it printed, and fails as it did; and
/// skips it where there are no namespaces, except under `CI=true`.
pub async fn inside(test: &'static str) -> bool {
    if is_inside() {
        run(Command::new("ip").args(["link", "set", "lo", "up"])).expect("the loopback interface");
        return true;
    }
    let able = run(unshare().args(["sh", "-c", "ip link set lo up && nft list ruleset"]));
    if let Err(cause) = able {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no network namespace with nftables: {cause}");
        println!("skipped: this needs a network namespace, `ip` and `nft`: {cause}");
        return false;
    }
    let inside = tokio::task::spawn_blocking(move || {
        let program = std::env::current_exe().expect("this program");
        run(unshare().arg(program).args([test, "--exact", "--nocapture"]).env(INSIDE, "1"))
    });
    let output = inside.await.expect("a thread").unwrap_or_else(|error| panic!("{error}"));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    false
}
