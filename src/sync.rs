//! Atomics and the lock of the shared-state files, from one place: the standard library's, or loom's under
//! `--cfg podpool_loom` (the plain `loom` flag breaks tokio). `Arc` is the standard library's in both: it is no part of
//! any protocol here.

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

/// Locks, whether or not a thread panicked while it held the lock: every critical section of this crate leaves its
/// data whole at each step, so a poisoned lock holds nothing that is wrong.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A number that no other call in this process gives, each greater than those before.
pub(crate) fn unique() -> u64 {
    // The standard library's under loom too: it is no part of any protocol, only a source of numbers.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // Relaxed: the order of one variable's changes is total.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
