//! Decides what the facts of a check mean. Pure: no input or output, and no clock.

mod failures;
mod names;
mod replication;
mod servers;
mod slots;
#[cfg(test)]
mod tests;

use std::{fmt, process::ExitCode};

use crate::facts::Facts;

/// A step of a check, in the order in which a connection passes them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Step {
    Config,
    Dns,
    Service,
    Tcp,
    Tls,
    Login,
    Proxy,
    Role,
    Slots,
    Lag,
    Clock,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Severity {
    /// The step passed.
    Ok,
    /// Nothing is wrong, but the finding may explain a surprise.
    Note,
    /// The pool works, but not as well or as safely as it could.
    Warning,
    /// The pool cannot do a part of its work.
    Error,
}

/// A result of one step: what was found, on which Pods, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) step: Step,
    pub(crate) severity: Severity,
    /// The Pods. Empty if the finding is about all of them or about none in particular.
    pub(crate) pods: Vec<String>,
    pub(crate) cause: String,
    /// `None` if nothing needs to be done.
    pub(crate) remedy: Option<String>,
}

/// Returns the findings in the order of the steps. A step that no Pod has reached has none.
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = names::findings(facts);
    findings.extend(failures::findings(facts));
    findings.extend(servers::findings(facts));
    findings.extend(slots::findings(facts));
    findings.extend(replication::findings(facts));
    findings.sort_by_key(|finding| finding.step);
    findings
}

impl Finding {
    fn new(step: Step, severity: Severity, cause: impl Into<String>) -> Self {
        Self { step, severity, pods: Vec::new(), cause: cause.into(), remedy: None }
    }

    fn on(mut self, pods: impl IntoIterator<Item = String>) -> Self {
        self.pods.extend(pods);
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl Step {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Dns => "dns",
            Self::Service => "service",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Proxy => "proxy",
            Self::Role => "role",
            Self::Slots => "slots",
            Self::Lag => "lag",
            Self::Clock => "clock",
        }
    }
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Returns the exit status of a command with this result.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Ok | Self::Note => 0,
            Self::Error => 1,
            Self::Warning => 3,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
