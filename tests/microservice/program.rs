//! Locates the microservice's executable, and builds it if its sources have changed.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// Returns the path of the executable. Builds it first if it is older than its sources.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test = env::current_exe().expect("the path of this program is known");
        // The path of the test program is `target/PROFILE/deps/microservice-HASH`.
        let profile = test.parent().and_then(Path::parent).expect("the program is in the profile's directory");
        let program = profile.join("examples/microservice");
        if !is_current(&program).expect("the sources' modification times are readable") {
            build(profile);
        }
        assert!(program.exists(), "cargo did not create {}", program.display());
        program
    })
}

/// Returns true if the executable exists and is at least as new as its sources.
fn is_current(program: &Path) -> io::Result<bool> {
    let built = match fs::metadata(program) {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in ["Cargo.toml", "src", "examples/microservice"] {
        newest = newest.max(modified(&root.join(source))?);
    }
    Ok(built >= newest)
}

/// Returns the last modification time of a file, or of the newest file in a directory.
fn modified(path: &Path) -> io::Result<SystemTime> {
    let metadata = fs::metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(modified(&entry?.path())?);
        }
    }
    Ok(newest)
}

fn build(profile: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--features", "metrics,testkit", "--example", "microservice", "--target-dir"]);
    cargo.arg(profile.parent().expect("the profile's directory is in the target directory"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build --example microservice: {status}");
}
