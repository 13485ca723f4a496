//! What people use today, beside podpool: the same work in one run, on one machine, turn by turn. Prints the tables of
//! README; ratios first, because nanoseconds are this machine's. Given one of `choosers`, `pools` and `statements`, only
//! that; given a number after it, with so many connections to each Pod.

mod choosers;
mod pools;
mod rounds;
mod statements;
mod table;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let size = arguments.next().map_or(pools::SIZE, |size| size.parse().expect("a number of connections to each Pod"));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("choosers") {
        choosers::compare();
    }
    if wanted("pools") {
        pools::compare(size);
    }
    if wanted("statements") {
        statements::compare(size);
    }
}
