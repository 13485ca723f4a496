//! The meaning of each [`Target`], defined once: the Pods that it accepts and those that it prefers.
//!
//! The rules are libpq's for `target_session_attrs` (PostgreSQL manual, "Parameter Key Words"), plus
//! `prefer-primary`, which libpq does not have. They are applied in three places:
//!
//! * [`candidates`](super::candidates) makes the lists of Pods for each target from the results of the last probes.
//! * A checkout compares the connection that it took with its target, because the server may have been promoted or
//!   demoted since the last probe.
//! * A client that uses a subset of the Pods needs at least one Pod of each of the target's [roles](Target::roles).

use crate::{
    config::Target,
    endpoint::{Role, snapshot::LISTS},
};

// A snapshot has one list of candidates for each target. `config` and `endpoint` are of one tier and cannot refer to
// each other, so the two numbers are compared here.
const _: () = assert!(LISTS == Target::ALL.len());

impl Target {
    /// The bit of the primary in [`roles`](Self::roles).
    pub(crate) const WRITES: u8 = 1;
    /// The bit of a standby in [`roles`](Self::roles).
    pub(crate) const READS: u8 = 2;

    /// Returns true if a server of this role may be used for the target. `read_only` is the server's
    /// `default_transaction_read_only`.
    ///
    /// Only targets that accept every server accept one whose role is unknown and that is not read-only.
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

    /// Returns true if accepted servers of this role come first. The other accepted servers are used while there are no
    /// such servers.
    #[inline]
    pub(crate) const fn prefers(self, role: Role) -> bool {
        match self {
            Self::PreferStandby => matches!(role, Role::Standby),
            Self::PreferPrimary => matches!(role, Role::Primary),
            Self::Any | Self::ReadWrite | Self::ReadOnly | Self::Primary | Self::Standby => true,
        }
    }

    /// Returns true if the target accepts standbys but no primary that takes writes. While all standbys are too far
    /// behind, [`LagFallback`](crate::config::LagFallback) applies to these targets.
    #[inline]
    pub(crate) const fn excludes_writable_primary(self) -> bool {
        self.accepts(Role::Standby, true) && !self.accepts(Role::Primary, false)
    }

    /// Returns the role that the target requires or prefers, as [`WRITES`](Self::WRITES) or [`READS`](Self::READS), or
    /// 0 if the target makes no difference between primary and standbys.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_servers_that_libpq_accepts() {
        let servers = [
            (Role::Primary, false),
            (Role::Primary, true),
            (Role::Standby, true),
            (Role::Standby, false),
            (Role::Unknown, false),
            (Role::Unknown, true),
        ];
        for (target, accepted) in [
            (Target::Any, [true; 6]),
            (Target::ReadWrite, [true, false, false, false, false, false]),
            (Target::ReadOnly, [false, true, true, true, false, true]),
            (Target::Primary, [true, true, false, false, false, false]),
            (Target::Standby, [false, false, true, true, false, false]),
            (Target::PreferStandby, [true; 6]),
            (Target::PreferPrimary, [true; 6]),
        ] {
            assert_eq!(servers.map(|(role, read_only)| target.accepts(role, read_only)), accepted, "{target}");
        }
    }

    #[test]
    fn derives_the_role_that_a_target_needs() {
        for (target, roles, excludes_writable_primary) in [
            (Target::Any, 0, false),
            (Target::ReadWrite, Target::WRITES, false),
            (Target::ReadOnly, Target::READS, true),
            (Target::Primary, Target::WRITES, false),
            (Target::Standby, Target::READS, true),
            (Target::PreferStandby, Target::READS, false),
            (Target::PreferPrimary, Target::WRITES, false),
        ] {
            assert_eq!(target.roles(), roles, "{target}");
            assert_eq!(target.excludes_writable_primary(), excludes_writable_primary, "{target}");
        }
    }
}
