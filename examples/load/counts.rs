use std::{collections::BTreeMap, fmt};

/// Numbers of successful and failed requests in an interval.
#[derive(Default)]
pub(crate) struct Counts {
    /// Successful requests by the Pod that executed the statement.
    ok: BTreeMap<String, u64>,
    /// Failed requests by cause.
    failed: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts one request. `outcome` is the Pod that executed the statement, or the cause of the failure.
    pub(crate) fn add(&mut self, outcome: Result<String, String>) {
        let count = match outcome {
            Ok(pod) => self.ok.entry(pod).or_default(),
            Err(cause) => self.failed.entry(cause).or_default(),
        };
        *count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (to, from) in [(&mut self.ok, &other.ok), (&mut self.failed, &other.failed)] {
            for (label, count) in from {
                *to.entry(label.clone()).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ok, failed] = [&self.ok, &self.failed].map(|counts| counts.values().sum::<u64>());
        write!(f, "{ok:>5} ok {failed:>4} failed")?;
        for (i, (pod, count)) in self.ok.iter().enumerate() {
            write!(f, "{} {pod} {count}", if i == 0 { " |" } else { "," })?;
        }
        for (i, (cause, count)) in self.failed.iter().enumerate() {
            write!(f, "{} {cause} {count}", if i == 0 { " | failed:" } else { "," })?;
        }
        Ok(())
    }
}
