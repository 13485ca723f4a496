//! Checks that the rest of the crate reaches the operating system only through this module.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Names that are forbidden outside of this module, each with the function that replaces it.
const FORBIDDEN: &[(&str, &str)] = &[
    ("OpenOptions", "system::fs"),
    ("RandomState", "a hasher with a fixed key"),
    ("SysRng", "system::random::seed"),
    ("SystemTime", "system::clock"),
    ("cfg!(unix", "system::platform"),
    ("cfg!(windows", "system::platform"),
    ("cfg(unix", "system::platform"),
    ("cfg(windows", "system::platform"),
    ("os::unix", "system::platform"),
    ("target_os", "system::platform"),
    ("TokioRuntimeProvider", "system::{Datagram, connect}"),
    (".exists()", "system::fs::exists"),
    (".is_file()", "system::fs::metadata"),
    (".read_dir()", "system::fs::entries"),
    ("clock_gettime", "system::clock"),
    ("fastrand::u64", "system::random"),
    ("handle.spawn(", "system::spawn_on"),
    ("rand::random", "system::random"),
    ("rand::rng", "system::random::rng"),
    ("runtime.spawn(", "system::spawn_on"),
    ("runtime().spawn(", "system::spawn_on"),
    ("socket2", "system::connect"),
    ("std::fs", "system::fs"),
    ("std::net::TcpStream", "system::connect"),
    ("std::net::UdpSocket", "system::Datagram"),
    ("std::thread", "system::thread"),
    ("task::JoinSet", "system::JoinSet"),
    ("task::spawn", "system::spawn"),
    ("tokio::fs", "system::fs"),
    ("tokio::net", "system::{Datagram, TcpStream}"),
    ("tokio::spawn", "system::spawn"),
];

/// Names that are allowed although they contain a forbidden name: they do not reach the operating system.
const ALLOWED: &[&str] = &["std::thread::LocalKey", "std::thread::panicking"];

/// Code that never runs in a simulation: tests, benchmarks, fuzz targets, the testkit and the command-line tool.
const EXCEPTIONS: &[&str] =
    &["bench", "bin", "fuzz.rs", "fuzzing.rs", "loom_tests.rs", "system", "testkit", "tests", "tests.rs"];

#[test]
fn the_operating_system_is_reached_only_through_this_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    let mut files = 0;
    for path in rust_files(&root) {
        let code = code(&fs::read_to_string(&path).unwrap());
        files += 1;
        breaches.extend(found(&code).map(|(line, name, instead)| {
            format!("{}:{line}: `{name}` is used; use `{instead}`", path.strip_prefix(&root).unwrap().display())
        }));
    }
    assert!(files > 100, "only {files} files in {}", root.display());
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn finds_names_in_nested_imports_and_qualified_paths() {
    let names = |text: &str| found(&code(text)).map(|(_, name, _)| name).collect::<Vec<_>>();
    assert_eq!(names("use std::{\n    io,\n    thread,\n};"), ["std::thread"]);
    assert_eq!(names("use std::{\n    fs::{self, File},\n    io,\n};"), ["std::fs", "std::fs"]);
    assert_eq!(names("use tokio::{io::{AsyncRead, ReadBuf}, net::UdpSocket};"), ["tokio::net"]);
    assert_eq!(names("let task = tokio::spawn(work);"), ["tokio::spawn"]);
    assert_eq!(names("drop(self.runtime.spawn(work));"), ["runtime.spawn("]);
    assert_eq!(names("let now = std::time::SystemTime::now();"), ["SystemTime"]);
    assert_eq!(names("if cfg!(windows) {}"), ["cfg!(windows"]);
    assert_eq!(names("#[cfg(any(target_os = \"linux\"))]"), ["target_os"]);
    assert_eq!(names("use std::{io, thread::LocalKey};"), Vec::<&str>::new());
    assert_eq!(names("// tokio::spawn\nlet text = \"std::fs\";"), Vec::<&str>::new());
    assert_eq!(names("#[cfg(test)]\nmod tests {\n    use std::fs;\n}"), Vec::<&str>::new());
}

/// Returns the line, the name and its replacement of each forbidden name.
fn found(code: &str) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let expanded: Vec<_> = expand_imports(code);
    let mut found = Vec::new();
    for (line, text) in expanded {
        let text = ALLOWED.iter().fold(text, |text, allowed| text.replace(allowed, ""));
        found.extend(FORBIDDEN.iter().filter(|(name, _)| text.contains(name)).map(|(name, used)| (line, *name, *used)));
    }
    found.into_iter()
}

/// Returns the numbered lines, with each import as a line with its full path.
fn expand_imports(code: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut import: Option<(usize, String)> = None;
    for (index, line) in code.lines().enumerate() {
        let text = line.trim_start();
        let starts =
            ["use ", "pub use ", "pub(crate) use ", "pub(super) use "].iter().find_map(|on| text.strip_prefix(on));
        match (&mut import, starts) {
            (None, None) => lines.push((index + 1, line.to_owned())),
            (None, Some(path)) => import = Some((index + 1, path.to_owned())),
            (Some((_, path)), _) => path.push_str(text),
        }
        if let Some((number, path)) = import.take_if(|(_, path)| path.contains(';')) {
            let mut paths = Vec::new();
            expand("", path.trim_end_matches(';'), &mut paths);
            lines.extend(paths.into_iter().map(|path| (number, path)));
        }
    }
    lines
}

/// Expands the braces of an import.
fn expand(prefix: &str, path: &str, paths: &mut Vec<String>) {
    let Some((head, rest)) = path.split_once('{') else {
        paths.push(format!("{prefix}{}", path.trim()));
        return;
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&prefix, &inner[start..], paths);
    }
}

/// Returns the text without comments, strings and the test module at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let starts_tests = line.trim_start().starts_with("#[cfg(") && line.contains("test");
        if starts_tests && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            break;
        }
        let mut line = line.to_owned();
        while let Some((start, length)) = string(&line) {
            line.replace_range(start..start + length, "''");
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Returns the position and the length of the first string in a line.
fn string(line: &str) -> Option<(usize, usize)> {
    let start = line.find('"')?;
    let mut escaped = false;
    let end = line[start + 1..].find(|character| match (escaped, character) {
        (false, '"') => true,
        _ => {
            escaped = !escaped && character == '\\';
            false
        }
    });
    Some((start, end.map_or(line.len() - start, |end| end + 2)))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !EXCEPTIONS.iter().any(|name| path.file_name().is_some_and(|file| file == *name)));
    paths.sort();
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(folders.iter().flat_map(|folder| rust_files(folder))).collect()
}
