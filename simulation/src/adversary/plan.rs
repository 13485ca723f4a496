use std::{fmt, str::FromStr, time::Duration};

use super::{
    Caller, Settings, Topology, Window,
    text::{Fields, ParseError},
    window::seconds,
};

/// The first words of the text form, with the version of the format.
const HEADER: &str = "podpool-plan 1";

/// Everything that determines a history, apart from the random numbers of the seed: hosts, settings, load and faults.
///
/// The text form has one line for each caller and each fault. A part of a line that is missing has its default.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed of all random numbers of the simulation.
    pub seed: u64,
    /// Time from the start within which all faults start and end.
    pub active: Duration,
    /// Time after that without faults.
    pub tail: Duration,
    /// The hosts.
    pub topology: Topology,
    /// The settings of the pools.
    pub settings: Settings,
    /// The load.
    pub callers: Vec<Caller>,
    /// The faults, sorted by their starts.
    pub faults: Vec<Window>,
}

impl Default for Plan {
    /// Returns a plan of the default topology without load and without faults.
    fn default() -> Self {
        Self {
            seed: 0,
            active: Duration::ZERO,
            tail: Duration::ZERO,
            topology: Topology::default(),
            settings: Settings::default(),
            callers: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Plan {
    /// Returns the duration of the simulation.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.active + self.tail
    }

    /// Returns the end of the last fault. Zero if there is none.
    #[must_use]
    pub fn last_end(&self) -> Duration {
        self.faults.iter().map(|window| window.end).max().unwrap_or_default()
    }

    /// Checks that the parts of the plan fit together.
    pub fn check(&self) -> Result<(), ParseError> {
        let topology = &self.topology;
        let problem = |expected: &str, received: String| Err(ParseError::new(expected, received));
        if !(1..=20).contains(&topology.pods) {
            return problem("1 to 20 Pods", topology.pods.to_string());
        }
        if !(1..=8).contains(&topology.clients) {
            return problem("1 to 8 clients", topology.clients.to_string());
        }
        if topology.nodes == 0 || topology.name_servers == 0 {
            return problem("at least one node and one name server", topology.fields().to_string());
        }
        if topology.synchronous >= topology.pods {
            return problem("fewer synchronous standbys than Pods", topology.synchronous.to_string());
        }
        for caller in &self.callers {
            caller.check(topology)?;
        }
        for window in &self.faults {
            if window.end > self.active {
                return problem("a fault that ends within the active time", window.to_string());
            }
            window.fault.check(topology)?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, active, tail, topology, settings, callers, faults } = self;
        let mut line = |words: String| writeln!(f, "{}", words.trim_end());
        line(HEADER.to_owned())?;
        line(format!("seed {seed}"))?;
        line(format!("active {:.3}", active.as_secs_f64()))?;
        line(format!("tail {:.3}", tail.as_secs_f64()))?;
        line(format!("topology {}", topology.fields()))?;
        line(format!("settings {}", settings.fields()))?;
        callers.iter().try_for_each(|caller| line(format!("caller {}", caller.fields())))?;
        faults.iter().try_for_each(|window| line(format!("fault {window}")))
    }
}

impl FromStr for Plan {
    type Err = ParseError;

    /// Parses the text form. Empty lines and lines that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let mut lines = lines.by_ref().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (first, header) = lines.next().unwrap_or((0, ""));
        if header != HEADER {
            return Err(ParseError::new(format!("`{HEADER}`"), header).at(first));
        }
        let mut plan = Self::default();
        for (number, line) in lines {
            plan.read(line).map_err(|error| error.at(number))?;
        }
        plan.faults.sort_by_key(|window| window.start);
        plan.check()?;
        Ok(plan)
    }
}

impl Plan {
    /// Reads a line of the text form.
    fn read(&mut self, line: &str) -> Result<(), ParseError> {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let mut only = || {
            let word = words.next().unwrap_or_default();
            if words.next().is_none() { Ok(word) } else { Err(ParseError::new("one value", line)) }
        };
        match keyword {
            "seed" => self.seed = only().and_then(|word| word.parse().map_err(|_| ParseError::new("a seed", word)))?,
            "active" => self.active = seconds(only()?)?,
            "tail" => self.tail = seconds(only()?)?,
            "topology" => self.topology = Topology::parse(Fields::parse(words)?)?,
            "settings" => self.settings = Settings::parse(Fields::parse(words)?)?,
            "caller" => self.callers.push(Caller::parse(Fields::parse(words)?)?),
            "fault" => self.faults.push(Window::parse(words)?),
            _ => {
                let expected = "`seed`, `active`, `tail`, `topology`, `settings`, `caller` or `fault`";
                return Err(ParseError::new(expected, keyword));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversary::{Fault, Host, Shape, Work};

    const TEXT: &str = "podpool-plan 1
seed 7
active 20.000
tail 30.000
topology pods=2 tls=yes
settings acquire_timeout=500ms
caller work=insert
caller client=1 target=standby cancelled=5%
fault 1.000..2.500 network.partition from=client-0 to=pod-1 both=no
fault 3.000..3.000 operator.failover
";

    #[test]
    fn parses_its_own_text() {
        let plan: Plan = TEXT.parse().unwrap();
        assert_eq!(plan.to_string(), TEXT);
        assert_eq!((plan.topology.pods, plan.topology.clients), (2, 2));
        assert_eq!(plan.callers[0].work, Work::Insert);
        let fault = Fault::Partition { from: Host::Client(0), to: Host::Pod(1), both: false };
        let window = Window { start: Duration::from_secs(1), end: Duration::from_millis(2500), fault };
        assert_eq!(plan.faults[0], window);
        assert_eq!(plan.last_end(), Duration::from_secs(3));
        for seed in 0..500 {
            let plan = Plan::draw(seed, Shape::default());
            assert_eq!(plan.to_string().parse(), Ok(plan), "seed {seed}");
        }
    }

    #[test]
    fn skips_comments_and_sorts_faults() {
        let swapped = TEXT.replace("fault 3.000..3.000", "# a comment\n\nfault 0.500..0.600");
        let plan: Plan = swapped.parse().unwrap();
        assert_eq!(plan.faults[0].fault, Fault::Failover {});
    }

    #[test]
    fn names_the_line_and_the_problem() {
        let error = |from: &str, to: &str| TEXT.replace(from, to).parse::<Plan>().unwrap_err().to_string();
        assert_eq!(error("podpool-plan 1", "plan"), "line 1: expected `podpool-plan 1`, received `plan`");
        assert_eq!(error("seed 7", "seed x"), "line 2: expected a seed, received `x`");
        assert_eq!(
            error("20.000", "20.0001"),
            "line 3: expected a number of seconds with at most three decimals, received `20.0001`"
        );
        assert_eq!(error("tls=yes", "tls=on"), "line 5: expected `yes` or `no` for `tls`, received `on`");
        assert_eq!(error("tls=yes", "tsl=yes"), "line 5: expected no further field, received `tsl=yes`");
        assert_eq!(
            error("1.000..2.500", "2.500..1.000"),
            "line 9: expected an end that is not before the start, received `2.500..1.000`"
        );
        assert_eq!(error(" to=pod-1", ""), "line 9: expected a field `to`, received `both=no`");
        assert!(error("operator.failover", "operator.pasue").starts_with("line 10: expected one of network.loss, "));
    }

    #[test]
    fn rejects_parts_that_do_not_fit_together() {
        let error = |from: &str, to: &str| TEXT.replace(from, to).parse::<Plan>().unwrap_err().to_string();
        assert_eq!(
            error("to=pod-1", "to=pod-2"),
            "expected a host of this kind with a number below 2, received `pod-2`"
        );
        assert_eq!(
            error("3.000..3.000", "3.000..21.000"),
            "expected a fault that ends within the active time, received `3.000..21.000 operator.failover`"
        );
        assert_eq!(error("pods=2", "pods=1"), "expected fewer synchronous standbys than Pods, received `1`");
        assert_eq!(error("client=1", "client=2"), "expected a client below 2, received `2`");
    }
}
