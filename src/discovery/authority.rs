/// The meaning of the absence of a known Pod from a [`Resolution`](super::Resolution).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Authority {
    /// The absence means nothing: the result only adds Pods. A Pod is removed when it is absent and fails its health
    /// check.
    Additive,
    /// The absence is certain, because the source follows the Pods as they change. No later result has to confirm it.
    ///
    /// An absent Pod that passes its health check is no longer used, unless no other Pod has a role that callers have
    /// requested. If the Pod is in [`leaving`](super::Resolution::leaving), its connections stay open for
    /// [`detach_linger`](crate::config::Limits::detach_linger). Otherwise, the Pod no longer exists, and its
    /// connections are closed as soon as they are returned.
    Exact,
    /// The result may be stale or incomplete, such as a DNS response. A later result must confirm the absence. This is
    /// the default.
    #[default]
    Tentative,
}
