use std::time::Duration;

/// The properties of the path from one host to another, in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Minimum time from the departure of a packet to its arrival.
    pub latency: Duration,
    /// Maximum time that is added to the latency of each packet. UDP packets overtake each other because of it.
    pub jitter: Duration,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that a UDP packet arrives twice.
    pub duplicates: f64,
    /// True if every packet is lost.
    pub blocked: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::from_micros(200),
            loss: 0.0,
            duplicates: 0.0,
            blocked: false,
        }
    }
}

impl Link {
    /// Returns true if a packet is lost.
    pub(super) fn loses(&self, rng: &mut fastrand::Rng) -> bool {
        self.blocked || self.loss > 0.0 && rng.f64() < self.loss
    }

    /// Returns the travel time of a packet in whole milliseconds, the resolution of the runtime's timers. The fraction
    /// is rounded up with a probability equal to the fraction, so that the mean is exact.
    pub(super) fn delay(&self, rng: &mut fastrand::Rng) -> Duration {
        let exact = self.latency.as_micros() as f64 / 1000.0 + self.jitter.as_micros() as f64 / 1000.0 * rng.f64();
        let whole = exact.floor();
        let up = rng.f64() < exact - whole;
        Duration::from_millis(whole as u64 + u64::from(up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_delay_is_exact() {
        let link = Link { latency: Duration::from_micros(300), jitter: Duration::from_micros(1000), ..Link::default() };
        let mut rng = fastrand::Rng::with_seed(1);
        let total: Duration = (0..100_000).map(|_| link.delay(&mut rng)).sum();
        let mean = total.as_secs_f64() * 1000.0 / 100_000.0;
        assert!((0.79..0.81).contains(&mean), "{mean} ms");
    }
}
