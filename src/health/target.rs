//! Defines, in one place, which Pods each [`Target`] accepts and which of the accepted Pods it prefers. The target is
//! the kind of server that a checkout requests.
//!
//! The rules are libpq's for `target_session_attrs` (PostgreSQL manual, "Parameter Key Words"), plus `prefer-primary`,
//! which libpq does not have. The rules are applied in three places:
//!
//! * [`candidates`](super::candidates) computes the lists of Pods for each target from the results of the last probes.
//! * A checkout verifies that its target accepts the role that the server last reported on the chosen connection. The
//!   server may have been promoted or demoted since the last probe.
//! * A client that uses a subset of the Pods includes at least one Pod of the [role](Target::roles) that its target
//!   needs.

use crate::{
    config::Target,
    endpoint::{Role, snapshot::LISTS},
};

// A snapshot has one list of candidates for each target. The modules `config` (targets) and `endpoint` (lists) must not
// depend on each other, so this module checks that both numbers are equal.
const _: () = assert!(LISTS == Target::ALL.len());

impl Target {
    /// The bit of the primary in [`roles`](Self::roles).
    pub(crate) const WRITES: u8 = 1;
    /// The bit of a standby in [`roles`](Self::roles).
    pub(crate) const READS: u8 = 2;

    /// Returns true if the target accepts a server with this role. `read_only` is the server's
    /// `default_transaction_read_only`.
    ///
    /// A server of unknown role is accepted by the targets that accept every server. The target `read-only` also
    /// accepts it if `read_only` is true.
    #[inline]
    pub(crate) const fn accepts(self, role: Role, read_only: bool) -> bool {
        match self {
            Self::Any | Self::PreferStandby | Self::PreferPrimary => true,
            Self::ReadWrite => matches!(role, Role::Primary) && !read_only,
            Self::ReadOnly => matches!(role, Role::Standby) || read_only,
            Self::Primary => matches!(role, Role::Primary),
            Self::Standby => matches!(role, Role::Standby),
        }
    }

    /// Returns true if the target prefers servers with this role. Other accepted servers are used only while no
    /// preferred server is available.
    #[inline]
    pub(crate) const fn prefers(self, role: Role) -> bool {
        match self {
            Self::PreferStandby => matches!(role, Role::Standby),
            Self::PreferPrimary => matches!(role, Role::Primary),
            Self::Any | Self::ReadWrite | Self::ReadOnly | Self::Primary | Self::Standby => true,
        }
    }

    /// Returns true if the target accepts standbys but not a writable primary.
    /// [`LagFallback`](crate::config::LagFallback) applies to such a target while all standbys are too far behind.
    #[inline]
    pub(crate) const fn excludes_writable_primary(self) -> bool {
        self.accepts(Role::Standby, true) && !self.accepts(Role::Primary, false)
    }

    /// Returns the role that the target needs, because it requires or prefers the role. The result is
    /// [`WRITES`](Self::WRITES) for the primary, [`READS`](Self::READS) for a standby, or 0 if the target accepts both
    /// without preference. The values are bits, so that callers can combine them.
    #[inline]
    pub(crate) const fn roles(self) -> u8 {
        const ROLES: [u8; LISTS] = {
            let (mut roles, mut i) = ([0; LISTS], 0);
            while i < LISTS {
                let target = Target::ALL[i];
                let primary = target.accepts(Role::Primary, false) && target.prefers(Role::Primary);
                let standby = target.accepts(Role::Standby, true) && target.prefers(Role::Standby);
                roles[i] = match (primary, standby) {
                    (true, false) => Target::WRITES,
                    (false, true) => Target::READS,
                    _ => 0,
                };
                i += 1;
            }
            roles
        };
        ROLES[self.index()]
    }

    /// Returns the [role](Self::roles) that the target prefers although it accepts the other one too, or 0. Callers
    /// with such a target do not wait for the role.
    pub(crate) const fn preferred_roles(self) -> u8 {
        match self {
            Self::PreferPrimary | Self::PreferStandby => self.roles(),
            Self::Any | Self::ReadWrite | Self::ReadOnly | Self::Primary | Self::Standby => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_same_servers_as_libpq() {
        let servers = [
            (Role::Primary, false),
            (Role::Primary, true),
            (Role::Standby, true),
            (Role::Standby, false),
            (Role::Unknown, false),
            (Role::Unknown, true),
        ];
        let table: [_; LISTS] = [
            (Target::Any, [true; 6]),
            (Target::ReadWrite, [true, false, false, false, false, false]),
            (Target::ReadOnly, [false, true, true, true, false, true]),
            (Target::Primary, [true, true, false, false, false, false]),
            (Target::Standby, [false, false, true, true, false, false]),
            (Target::PreferStandby, [true; 6]),
            (Target::PreferPrimary, [true; 6]),
        ];
        assert_eq!(table.map(|(target, _)| target), Target::ARRAY, "the table needs one row per target");
        for (target, accepted) in table {
            assert_eq!(servers.map(|(role, read_only)| target.accepts(role, read_only)), accepted, "{target}");
        }
    }

    #[test]
    fn derives_the_role_that_a_target_needs() {
        let table: [_; LISTS] = [
            (Target::Any, 0, false),
            (Target::ReadWrite, Target::WRITES, false),
            (Target::ReadOnly, Target::READS, true),
            (Target::Primary, Target::WRITES, false),
            (Target::Standby, Target::READS, true),
            (Target::PreferStandby, Target::READS, false),
            (Target::PreferPrimary, Target::WRITES, false),
        ];
        assert_eq!(table.map(|(target, ..)| target), Target::ARRAY, "the table needs one row per target");
        for (target, roles, excludes_writable_primary) in table {
            assert_eq!(target.roles(), roles, "{target}");
            assert_eq!(target.excludes_writable_primary(), excludes_writable_primary, "{target}");
        }
    }
}
