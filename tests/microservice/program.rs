//! Where the program is, built if need be.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The example's binary, not older than what it is made from.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test = env::current_exe().expect("the test's own path");
        // target/PROFILE/deps/microservice-HASH
        let profile = test.parent().and_then(Path::parent).expect("the profile's directory");
        let program = profile.join("examples/microservice");
        if !is_current(&program).expect("the sources' times") {
            build(profile);
        }
        assert!(program.exists(), "{} was built and is not there", program.display());
        program
    })
}

fn is_current(program: &Path) -> io::Result<bool> {
    let built = match fs::metadata(program) {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in ["Cargo.toml", "src", "examples/microservice"] {
        newest = newest.max(changed(&root.join(source))?);
    }
    Ok(built >= newest)
}

/// When a file, or the newest file below a directory, was changed last.
fn changed(path: &Path) -> io::Result<SystemTime> {
    let metadata = fs::metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(changed(&entry?.path())?);
        }
    }
    Ok(newest)
}

fn build(profile: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--features", "testkit", "--example", "microservice", "--target-dir"]);
    cargo.arg(profile.parent().expect("the target directory"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let status = cargo.status().expect("cargo");
    assert!(status.success(), "cargo build --example microservice: {status}");
}
