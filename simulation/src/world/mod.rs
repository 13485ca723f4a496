//! The world of a simulation: hosts with tasks, clocks, files and random numbers, on one runtime whose clock is paused.
//!
//! Everything runs on one thread, and every choice comes from one seed: the order in which the runtime polls tasks, the
//! random numbers of the hosts and of the standard library, and the times of the packets. The same seed therefore
//! produces the same [`Trace`]. Simulated time advances when no task can run.

mod clock;
mod files;
mod host;
mod process;
mod random;
mod system;
mod trace;

use std::{fmt, net::IpAddr, panic, rc::Rc, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions, RngSeed},
    time::Instant,
};

pub use self::{
    clock::cpu_time,
    host::Host,
    trace::{Entry, Trace},
};
use self::{host::Machine, random::seed_of, system::System};
use crate::network::Network;

/// A simulated world. Clones refer to the same world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    seed: u64,
    start: Instant,
    network: Network,
    trace: Trace,
}

impl World {
    /// Runs a simulation on a thread of its own, until `main` returns. Then all tasks are dropped.
    ///
    /// The thread is new, because the standard library, tokio and other crates keep random numbers and caches per
    /// thread.
    ///
    /// # Panics
    ///
    /// Panics if `main` panics, with the same payload.
    pub fn run<T: Send + 'static>(seed: u64, main: impl AsyncFnOnce(World) -> T + Send + 'static) -> T {
        let thread = thread::Builder::new().name(format!("seed-{seed}")).stack_size(8 << 20);
        let thread = thread.spawn(move || Self::run_on_this_thread(seed, main)).expect("a thread can be started");
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    fn run_on_this_thread<T>(seed: u64, main: impl AsyncFnOnce(World) -> T) -> T {
        random::start(seed_of(seed, "getrandom"));
        clock::stop();
        let mut builder = Builder::new_current_thread();
        builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
        let runtime = builder.build_local(LocalOptions::default()).expect("a runtime without sockets can be built");
        let entered = runtime.block_on(async {
            clock::run();
            let network = Network::new(seed_of(seed, "network"));
            let start = Instant::now();
            let world = World(Arc::new(Shared { seed, start, network, trace: Trace::new(start) }));
            let outside = Machine::new("world", &world.0.network, &[], seed);
            let entered = podpool::simulation::enter(Rc::new(System::new(start, outside)));
            (entered, main(world).await)
        });
        // The tasks are dropped while the thread is still in the world.
        drop(runtime);
        entered.1
    }

    /// Adds a host.
    pub fn host(&self, name: &str, addresses: &[IpAddr]) -> Host {
        Host::new(self.clone(), Machine::new(name, &self.0.network, addresses, self.0.seed))
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Returns a generator of random numbers that depends only on the seed and the name.
    pub fn rng(&self, name: &str) -> fastrand::Rng {
        fastrand::Rng::with_seed(seed_of(self.0.seed, name))
    }

    /// Returns the network.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// Returns the trace.
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Returns the time since the start of the simulation.
    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}
