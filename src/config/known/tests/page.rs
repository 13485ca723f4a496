//! Generates `docs/parameters.md` from the tables and the descriptions in `src/config/parameters.md`.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;

const INTRODUCTION: &str = "\
# Parameters

Every parameter of podpool and every setting of libpq 18, with the differences between the two. Generated from
`src/config/known.rs` and `src/config/parameters.md` by
`PODPOOL_WRITE_DOCS=1 cargo test --all-features --lib config::known`; the same test fails if this page is out of date.

A parameter is set in a URL, a keyword/value string or a configuration file. Its environment variable, if any, is read
by [`Config::from_env`] and [`Config::parse_with_env`] only. [`config`] describes the syntax. No setting of libpq is
ignored in silence: each one is implemented, or is an error with a reason, or has no effect for a reason that is given
here.

## Implemented

The unit is that of a number without a unit. A duration may have one of PostgreSQL's units instead: `us`, `ms`, `s`,
`min`, `h` or `d`.

";

const REFUSED: &str = "
## Refused

Setting one of these is an error that names it and gives the reason, unless the value is empty or is one of those that
match the pool's fixed behavior. Names with a note are not parameters of libpq 18.

";

const HARMLESS: &str = "
## Without effect

These variables of libpq 18 are accepted and have no effect. Variables that libpq does not read, such as `PGDATA`, are
ignored too.

";

/// The targets of the links on a repository page. Those of rustdoc are in `src/guide.rs`.
const LINKS: &str = "
[`Config::from_env`]: ../src/config/text.rs
[`Config::parse_with_env`]: ../src/config/text.rs
[`config`]: ../src/config/mod.rs
";

/// Removes the links, which have other targets on this page: `[text](target)` and `[text]` become `text`, and a type in
/// parentheses is removed.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (label, after) = after.split_once(']').expect("the link has a label");
        let after = after.strip_prefix('(').and_then(|target| Some(target.split_once(')')?.1)).unwrap_or(after);
        match before.strip_suffix(" (").filter(|_| label.starts_with('`')) {
            Some(before) => {
                out.push_str(before);
                rest = after.strip_prefix(')').expect("a type is alone in its parentheses");
            }
            None => {
                out.push_str(before);
                out.push_str(label);
                rest = after;
            }
        }
    }
    out + rest
}

/// Returns the unit of a number that the value contains.
fn unit(name: &str, value: &str) -> &'static str {
    match name {
        "tcp_user_timeout" => "ms",
        _ if value.starts_with("duration") => "s",
        _ if value.contains("bytes") => "bytes",
        _ => "",
    }
}

fn code(text: Option<&str>) -> String {
    text.map(|text| format!("`{text}`")).unwrap_or_default()
}

fn row(cells: &[&str]) -> String {
    cells.iter().map(|cell| format!("| {cell} ").replace("|  ", "| ")).collect::<String>() + "|\n"
}

/// Returns the value and the default of each parameter as `src/config/parameters.md` describes them.
fn descriptions() -> BTreeMap<&'static str, (String, String)> {
    let rows = include_str!("../../parameters.md").lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`'), (without_links(cells[2]), without_links(cells[3])))
    })
    .collect()
}

/// Returns the page.
fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| parameter | value | default | unit | variable | compared with libpq 18 |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    let descriptions = descriptions();
    for parameter in parameter::PARAMETERS {
        let (value, default) = &descriptions[parameter.name];
        let compared = match PARAMETERS.iter().find(|known| known.name == parameter.name).map(|known| &known.state) {
            Some(State::Implemented("")) => "the same",
            Some(State::Implemented(differs)) => differs,
            _ => "only in podpool",
        };
        let (name, variable) = (code(Some(parameter.name)), code(parameter.variable));
        page.push_str(&row(&[&name, value, default, unit(parameter.name, value), &variable, compared]));
    }
    page.push_str(REFUSED);
    page.push_str("| setting | variable | accepted values | reason | note |\n|---|---|---|---|---|\n");
    let notes = [(PARAMETERS, ""), (FOREIGN, "not in libpq 18's list of parameters"), (VARIABLES, "variable only")];
    for (table, note) in notes {
        for known in table {
            if let State::Refused { accepted, reason } = known.state {
                let accepted: Vec<_> = accepted.iter().map(|value| code(Some(value))).collect();
                let name = code(Some(known.name));
                page.push_str(&row(&[&name, &code(known.variable), &accepted.join(", "), reason, note]));
            }
        }
    }
    page.push_str(HARMLESS);
    page.push_str("| variable | reason |\n|---|---|\n");
    for known in table() {
        if let State::Harmless(reason) = known.state {
            page.push_str(&row(&[&code(known.variable), reason]));
        }
    }
    page + LINKS
}

#[test]
fn the_page_of_parameters_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parameters.md");
    let page = page();
    if std::env::var_os("PODPOOL_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let command = "PODPOOL_WRITE_DOCS=1 cargo test --all-features --lib config::known";
    assert!(written == page, "docs/parameters.md is out of date; run `{command}`");
}

#[test]
fn the_page_names_every_setting() {
    let page = page();
    for known in table() {
        let name = known.variable.unwrap_or(known.name);
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    assert!(!page.contains("](ssl::") && page.lines().all(|line| !line.starts_with("| `") || line.ends_with(" |")));
}
