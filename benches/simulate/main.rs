//! A discrete-event simulation of many clients on many Pods, over the library's own compiled choice, counts, health and
//! speeds. Seeded: the same numbers come out each time.
//!
//! ```text
//! cargo bench --all-features --bench simulate              every scenario, as a table
//! cargo bench --all-features --bench simulate -- --write   the same, into docs/simulation.md and docs/simulation.svg
//! cargo bench --all-features --bench simulate -- --test    only what must hold, and fails where it does not
//! ```

mod chart;
mod claims;
mod pod;
mod queue;
mod report;
mod run;
mod scenario;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        claims::check();
        return;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let tables = report::all(filter.map_or("", String::as_str));
    let text = report::text(&tables);
    println!("{text}");
    if arguments.iter().any(|argument| argument == "--write") {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
        std::fs::create_dir_all(docs).expect("docs/ can be made");
        std::fs::write(format!("{docs}/simulation.md"), text).expect("docs/ can be written");
        std::fs::write(format!("{docs}/simulation.svg"), chart::svg(&tables)).expect("docs/ can be written");
    }
}
