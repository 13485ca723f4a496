//! What people use today, beside podpool: the same work in one run, on one machine, turn by turn. Prints the tables of
//! README; ratios first, because nanoseconds are this machine's.

mod choosers;
mod pools;
mod rounds;
mod statements;
mod table;

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("choosers") {
        choosers::compare();
    }
    if wanted("pools") {
        pools::compare();
    }
    if wanted("statements") {
        statements::compare();
    }
}
