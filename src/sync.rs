//! Atomics and locks for lock-free code: the standard library's, or loom's with `--cfg podpool_loom`. (The usual
//! `--cfg loom` would also change tokio, and break it.) `Arc` is always the standard library's, because no ordering
//! depends on its reference counts.

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
    // The standard library's atomic even under loom, because no ordering depends on the counter.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // Relaxed: the counter guards no data, and the modifications of a single atomic have a total order.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
