//! Re-exports atomics and mutexes from the standard library or, with `--cfg podpool_loom`, from the model checker loom.
//! (The usual `--cfg loom` would also switch tokio to loom, and break it.) `Arc` is always the standard library's,
//! because no memory ordering in this crate depends on its reference counts.

pub(crate) use std::sync::Arc;

#[cfg(not(podpool_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

#[cfg(podpool_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Locks a mutex, even if it is poisoned. Every critical section in this crate keeps its data consistent at each step,
/// so the data is valid even after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
