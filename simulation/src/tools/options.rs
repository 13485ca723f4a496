use std::{collections::BTreeSet, time::Duration};

use crate::adversary::Shape;

/// Shortest plan, in seconds.
const SHORTEST: u64 = 9;

/// The options of the program. They may stand anywhere among its words.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The time frame of the plans of seeds: `--seconds SECONDS`.
    pub shape: Shape,
    /// Seeds that are not run: `--skip SEED,SEED...`.
    pub skipped: BTreeSet<u64>,
    /// True if no seed is begun after one that has failed: `--stop`.
    pub stops: bool,
}

impl Options {
    /// Removes the options from the words. Returns `None` if an option has no valid value.
    #[must_use]
    pub fn take(words: &mut Vec<&str>) -> Option<Self> {
        let (mut options, mut others, mut all) = (Self::default(), Vec::new(), std::mem::take(words).into_iter());
        while let Some(word) = all.next() {
            match word {
                "--seconds" => {
                    let seconds = all.next()?.parse().ok().filter(|seconds| *seconds >= SHORTEST)?;
                    options.shape = Shape::within(Duration::from_secs(seconds));
                }
                "--skip" => {
                    let seeds = all.next()?.split(',').filter(|seed| !seed.is_empty());
                    options.skipped = seeds.map(|seed| seed.parse().ok()).collect::<Option<_>>()?;
                }
                "--stop" => options.stops = true,
                _ => others.push(word),
            }
        }
        *words = others;
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_removed_from_the_words() {
        let mut words = vec!["simulate", "--stop", "50", "--seconds", "30", "7", "--skip", "8,9"];
        let options = Options::take(&mut words).expect("valid options");
        assert_eq!(words, ["simulate", "50", "7"]);
        assert_eq!(options.shape.active + options.shape.tail, Duration::from_secs(30));
        assert_eq!((options.stops, options.skipped), (true, BTreeSet::from([8, 9])));
    }

    #[test]
    fn values_that_are_missing_or_wrong_are_rejected() {
        for words in [&["--seconds"][..], &["--seconds", "8"], &["--skip"], &["--skip", "1,b"]] {
            assert!(Options::take(&mut words.to_vec()).is_none(), "{words:?}");
        }
    }
}
