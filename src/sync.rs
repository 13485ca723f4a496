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

/// Returns a number that is unique in this process and greater than all numbers returned before.
pub(crate) fn unique() -> u64 {
    // This atomic is the standard library's even in loom tests, because no memory ordering depends on the counter.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // Relaxed: the counter guards no other data, and the modifications of a single atomic have a total order.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
