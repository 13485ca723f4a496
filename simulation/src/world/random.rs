//! Random numbers from the seed: named streams for the parts of the world, and one stream for everything that asks the
//! operating system, by an override of the C library's `getrandom`.

use std::{cell::Cell, ffi::c_void};

thread_local! {
    /// The state of this thread's stream, or `None` outside of a simulation.
    static STREAM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns the seed of a named stream.
pub(super) fn seed_of(seed: u64, name: &str) -> u64 {
    // FNV-1a, whose result never changes between versions of the standard library.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    mix(seed ^ hash)
}

/// Makes `getrandom` return random numbers from a seed on this thread.
pub(super) fn start(seed: u64) {
    STREAM.set(Some(seed));
    // The seed of fastrand's generator contains the number of the thread, which differs between two runs.
    fastrand::seed(mix(seed));
    // The reference makes the linker include the override.
    std::hint::black_box(getrandom as unsafe extern "C" fn(*mut c_void, usize, u32) -> isize);
}

/// Advances a stream (SplitMix64) and returns its next number.
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Replaces the C library's function: fills a buffer with random bytes, from the seed within a simulation and from the
/// kernel elsewhere.
///
/// # Safety
///
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: u32) -> isize {
    let Some(mut state) = STREAM.get() else {
        // SAFETY: the caller guarantees that the buffer is valid for writes of this length.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    let mut written = 0;
    while written < length {
        let bytes = next(&mut state).to_le_bytes();
        let count = bytes.len().min(length - written);
        // SAFETY: `written + count` is at most `length`, for which the buffer is valid. The source is a local array.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>().add(written), count) };
        written += count;
    }
    STREAM.set(Some(state));
    length as isize
}
