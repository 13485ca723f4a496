//! A discrete-event simulation of many clients and many Pods. The clients run the library's own Pod selection,
//! in-flight counts, health state machine and latency classes. The random numbers are seeded, so every run has the same
//! results.
//!
//! ```text
//! cargo bench --all-features --bench simulate              print a table for every scenario
//! cargo bench --all-features --bench simulate -- --write   also write docs/simulation.md and docs/simulation.svg
//! cargo bench --all-features --bench simulate -- --test    only check the guarantees of the default policy
//! ```

mod chart;
mod claims;
mod client;
mod outcome;
mod pod;
mod probing;
mod queue;
mod report;
mod scenario;
mod simulation;
mod strategy;

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
        std::fs::create_dir_all(docs).expect("docs/ can be created");
        std::fs::write(format!("{docs}/simulation.md"), text).expect("docs/ is writable");
        std::fs::write(format!("{docs}/simulation.svg"), chart::svg(&tables)).expect("docs/ is writable");
    }
}
