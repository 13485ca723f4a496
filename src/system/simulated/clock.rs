use std::time::Duration;

use crate::system::simulation::world;

/// Returns the time since the start of the simulation.
pub(crate) fn since_start() -> Duration {
    world().elapsed()
}

/// Returns the total time for which the host's machine has been suspended.
pub(crate) fn suspended() -> Duration {
    world().suspended()
}
