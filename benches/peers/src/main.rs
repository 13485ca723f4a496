//! Compares podpool with other connection pools and load balancers. All of them do the same work on the same machine,
//! in alternating rounds. Prints the tables of docs/benchmarks.md. The tables contain ratios and absolute readings;
//! only the ratios are meaningful on other machines.
//!
//! The first argument, `choosers`, `pools` or `statements`, selects one part of the comparison. The second argument
//! sets the number of connections to each Pod.

mod choosers;
mod pools;
mod rounds;
mod statements;
mod table;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let selected = arguments.next();
    let size = arguments.next().map_or(pools::SIZE, |size| {
        size.parse().expect("the second argument is the number of connections to each Pod")
    });
    let is_selected = |part: &str| selected.as_deref().is_none_or(|selected| selected == part);
    if is_selected("choosers") {
        choosers::compare();
    }
    if is_selected("pools") {
        pools::compare(size);
    }
    if is_selected("statements") {
        statements::compare(size);
    }
}
