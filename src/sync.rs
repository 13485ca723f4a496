//! Atomics and the lock of the shared-state files, from one place: the standard library's, or loom's under
//! `--cfg podpool_loom` (the plain `loom` flag breaks tokio).

#[cfg(not(podpool_loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

#[cfg(podpool_loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Locks, whether or not a thread panicked while it held the lock: every critical section of this crate leaves its
/// data whole at each step, so a poisoned lock holds nothing that is wrong.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
