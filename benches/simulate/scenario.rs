//! The simulated scenarios. Times are in seconds since the start, unless noted otherwise.

/// A fault of one Pod: of the last Pod for [`Fault::Joins`], of all Pods for [`Fault::Cold`], and of the first Pod for
/// all other faults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Until the time `until`, the Pod's jobs take longer by the factor `times`.
    Slow {
        times: f64,
        until: f64,
    },
    /// The Pod makes no progress for `seconds` from the time `at`.
    Stall {
        at: f64,
        seconds: f64,
    },
    /// From the time `at`, every connection breaks a millisecond after a statement is sent, and probes fail.
    Breaks {
        at: f64,
    },
    /// From the time `at`, every statement fails after a millisecond, and probes pass.
    Fails {
        at: f64,
    },
    /// The Pod's responses take longer by this time, in milliseconds, but not its jobs.
    Far {
        millis: f64,
    },
    /// Until the time `until`, the jobs of all Pods take longer by the factor `times`.
    Cold {
        times: f64,
        until: f64,
    },
    /// From the time `at` to the time `until`, every connection breaks and probes fail. For the `seconds` after that,
    /// the Pod's jobs take longer by the factor `times`.
    Returns {
        at: f64,
        until: f64,
        times: f64,
        seconds: f64,
    },
    /// The Pod exists from the time `at`. For the first `seconds` after that, its jobs take longer by the factor
    /// `times`.
    Joins {
        at: f64,
        times: f64,
        seconds: f64,
    },
}

impl Fault {
    /// Returns true if a failing Pod breaks connections and does not answer probes.
    pub(crate) fn breaks_connections(self) -> bool {
        matches!(self, Self::Breaks { .. } | Self::Returns { .. })
    }
}

/// A number of clients and Pods, their load and a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    pub(crate) pods: usize,
    /// Percentage of the Pods' total capacity that the statements use. A slow Pod counts with its reduced capacity, and
    /// a Pod that joins does not count.
    pub(crate) load: u32,
    pub(crate) fault: Fault,
    /// If true, one statement in twenty takes twelve times as long as the others.
    pub(crate) long: bool,
    /// If true, statements take a tenth of [`MEAN`].
    pub(crate) short: bool,
    /// Start of the measured interval.
    pub(crate) from: f64,
    /// End of the measured interval, and of the run.
    pub(crate) to: f64,
}

/// Number of statements that a Pod executes concurrently.
pub(crate) const WORKERS: usize = 4;
/// Mean service time of a statement, in nanoseconds.
pub(crate) const MEAN: f64 = 1e6;

impl Scenario {
    pub(crate) const fn new(name: &'static str, clients: usize, pods: usize, load: u32, fault: Fault) -> Self {
        Self { name, clients, pods, load, fault, long: false, short: false, from: 10.0, to: 40.0 }
    }

    /// Returns the total number of statements per second from all clients.
    pub(crate) fn rate(&self) -> f64 {
        let pods = match self.fault {
            Fault::Slow { times, .. } => (self.pods - 1) as f64 + 1.0 / times,
            Fault::Joins { .. } => (self.pods - 1) as f64,
            _ => self.pods as f64,
        };
        let mean = if self.long { MEAN * 0.95 + MEAN * 12.0 * 0.05 } else { MEAN };
        let mean = if self.short { mean / 10.0 } else { mean };
        f64::from(self.load) / 100.0 * pods * WORKERS as f64 * 1e9 / mean
    }

    /// Returns the scenario without its fault.
    pub(crate) fn without_fault(mut self) -> Self {
        self.fault = Fault::None;
        self
    }
}

const SLOW: Fault = Fault::Slow { times: 5.0, until: 1e9 };
const VERY: Fault = Fault::Slow { times: 10.0, until: 1e9 };

pub(crate) const EQUAL: Scenario = Scenario::new("equal Pods", 10, 3, 80, Fault::None);
pub(crate) const ONE_SLOW_60: Scenario = Scenario::new("one Pod 5 times slow", 10, 3, 60, SLOW);
pub(crate) const ONE_SLOW_80: Scenario = Scenario::new("one Pod 5 times slow", 10, 3, 80, SLOW);
/// The scenarios of a Pod that is ten times slower.
pub(crate) const VERY_SLOW: [Scenario; 2] =
    [Scenario::new("one Pod 10 times slow", 10, 3, 60, VERY), Scenario::new("one Pod 10 times slow", 10, 3, 80, VERY)];
pub(crate) const FAR: Scenario = Scenario::new("one Pod 1 ms farther away", 10, 3, 20, Fault::Far { millis: 1.0 });
pub(crate) const FAR_SHORT: Scenario = Scenario {
    short: true,
    to: 20.0,
    ..Scenario::new("one Pod 1 ms farther away, short statements", 10, 3, 10, Fault::Far { millis: 1.0 })
};
/// A scenario with about 300 statements of a single client, from the start of all Pods.
pub(crate) const COLD: Scenario = Scenario {
    from: 0.0,
    to: 1.25,
    ..Scenario::new("cold start of all Pods", 1, 3, 2, Fault::Cold { times: 5.0, until: 0.75 })
};
pub(crate) const MANY_COLD: Scenario = Scenario {
    from: 0.0,
    to: 10.0,
    ..Scenario::new("cold start of all Pods", 500, 20, 20, Fault::Cold { times: 3.0, until: 3.0 })
};
const RETURNS: Fault = Fault::Returns { at: 10.0, until: 15.0, times: 3.0, seconds: 1.0 };
/// A scenario in which one Pod is down for 5 s and returns cold. A client notices its return up to a second later. The
/// measured interval begins a second after that.
pub(crate) const RETURN: Scenario =
    Scenario { from: 17.0, to: 27.0, ..Scenario::new("a cold Pod returns", 10, 3, 40, RETURNS) };
pub(crate) const MANY_RETURN: Scenario =
    Scenario { from: 17.0, to: 27.0, ..Scenario::new("a cold Pod returns", 500, 20, 40, RETURNS) };
pub(crate) const MANY_SLOW: Scenario =
    Scenario { from: 15.0, to: 35.0, ..Scenario::new("one Pod 5 times slow", 500, 20, 75, SLOW) };
pub(crate) const BREAKS: Scenario =
    Scenario { to: 60.0, ..Scenario::new("one Pod breaks every connection", 10, 3, 60, Fault::Breaks { at: 15.0 }) };
pub(crate) const MANY_BREAKS: Scenario =
    Scenario { to: 50.0, ..Scenario::new("one Pod breaks every connection", 500, 20, 75, Fault::Breaks { at: 15.0 }) };
/// A scenario in which one Pod is slow until 20 s. The measured interval begins 5 s after the Pod's recovery and lasts
/// 5 s.
pub(crate) const HEALED: Scenario = Scenario {
    from: 25.0,
    to: 30.0,
    ..Scenario::new("a slow Pod that has healed 5 s ago", 10, 3, 60, Fault::Slow { times: 5.0, until: 20.0 })
};
pub(crate) const MANY_HEALED: Scenario = Scenario {
    from: 25.0,
    to: 30.0,
    ..Scenario::new("a slow Pod that has healed 5 s ago", 500, 20, 60, Fault::Slow { times: 5.0, until: 20.0 })
};
const JOINS: Fault = Fault::Joins { at: 15.0, times: 3.0, seconds: 3.0 };
pub(crate) const NEW: Scenario = Scenario::new("a cold Pod joins", 10, 4, 75, JOINS);
pub(crate) const MANY_NEW: Scenario = Scenario { to: 30.0, ..Scenario::new("a cold Pod joins", 500, 21, 75, JOINS) };

pub(crate) const ALL: &[Scenario] = &[
    Scenario::new("equal Pods", 1, 3, 80, Fault::None),
    EQUAL,
    Scenario::new("equal Pods", 10, 3, 95, Fault::None),
    Scenario::new("equal Pods", 50, 10, 80, Fault::None),
    Scenario::new("equal Pods", 10, 10, 95, Fault::None),
    Scenario { to: 25.0, ..Scenario::new("equal Pods", 500, 20, 75, Fault::None) },
    Scenario { to: 20.0, ..Scenario::new("equal Pods", 10, 100, 80, Fault::None) },
    Scenario { long: true, ..Scenario::new("long statements among short ones", 10, 10, 80, Fault::None) },
    Scenario { long: true, ..Scenario::new("long statements among short ones", 50, 3, 80, Fault::None) },
    ONE_SLOW_60,
    ONE_SLOW_80,
    Scenario::new("one Pod 5 times slow", 1, 3, 80, SLOW),
    Scenario::new("one Pod 5 times slow", 50, 10, 80, SLOW),
    MANY_SLOW,
    Scenario { to: 20.0, ..Scenario::new("one Pod 5 times slow", 10, 100, 80, SLOW) },
    VERY_SLOW[0],
    VERY_SLOW[1],
    FAR,
    FAR_SHORT,
    Scenario::new("one Pod stops for 5 s", 10, 3, 60, Fault::Stall { at: 15.0, seconds: 5.0 }),
    Scenario::new("one Pod stops for 5 s", 10, 10, 60, Fault::Stall { at: 15.0, seconds: 5.0 }),
    BREAKS,
    MANY_BREAKS,
    Scenario { to: 60.0, ..Scenario::new("one Pod fails every statement", 10, 3, 60, Fault::Fails { at: 15.0 }) },
    HEALED,
    MANY_HEALED,
    NEW,
    MANY_NEW,
    COLD,
    MANY_COLD,
    RETURN,
    MANY_RETURN,
];
