//! The storage of a pool's slots, each of which holds the counters and flags of one Pod.

use std::ops::Deref;

use super::Slot;
use crate::{
    endpoint::chunks::{CHUNK, Chunk, Chunks},
    sync::{Arc, Mutex, lock},
};

/// An allocator of slots. Slots are contiguous in chunks of 4 KiB. A Pod's slot never moves, even if other Pods are
/// added or removed.
#[derive(Debug)]
pub(crate) struct Slab {
    chunks: Chunks<Slot>,
    /// The numbers of the slots that are not in use.
    free: Arc<Mutex<Vec<u32>>>,
}

impl Default for Slab {
    fn default() -> Self {
        Self { chunks: Chunks::default(), free: Arc::new(Mutex::new((0..CHUNK as u32).rev().collect())) }
    }
}

impl Slab {
    /// Allocates a slot with all values at zero. Dropping the handle frees the slot.
    pub(crate) fn take(&mut self) -> SlotHandle {
        let recycled = lock(&self.free).pop();
        let number = match recycled {
            Some(number) => number,
            None => {
                let first = self.chunks.len() as u32;
                self.chunks.grow();
                lock(&self.free).extend((first + 1..first + CHUNK as u32).rev());
                first
            }
        };
        SlotHandle { chunk: self.chunks.chunk(number).clone(), number, free: self.free.clone() }
    }

    /// Returns all slots, for access by number.
    pub(crate) fn slots(&self) -> Slots {
        Slots(self.chunks.clone())
    }
}

/// The slots of a slab, by number.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Chunks<Slot>);

impl Slots {
    /// Returns the slots with these numbers, which must be from handles of the same slab.
    #[inline]
    pub(crate) fn of(&self, numbers: impl Iterator<Item = u32>) -> impl Iterator<Item = &Slot> {
        // Check once whether the slab has only one chunk, rather than for each slot.
        let only = self.0.only();
        numbers.map(move |number| only.map_or_else(|| self.slot(number), |only| &only[number as usize % CHUNK]))
    }

    /// Returns the slot with this number, or `None` if the slab has no such slot.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<&Slot> {
        self.0.find(number)
    }

    /// Returns the slot with this number, which must be from a handle of the same slab.
    #[inline(always)]
    pub(crate) fn slot(&self, number: u32) -> &Slot {
        self.0.get(number)
    }
}

/// The handle of the one Pod that owns a slot. Dropping the handle resets and frees the slot.
#[derive(Debug)]
pub(crate) struct SlotHandle {
    chunk: Chunk<Slot>,
    number: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl SlotHandle {
    /// Returns the slot's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Deref for SlotHandle {
    type Target = Slot;

    #[inline]
    fn deref(&self) -> &Slot {
        &self.chunk[self.number as usize % CHUNK]
    }
}

impl Drop for SlotHandle {
    fn drop(&mut self) {
        self.reset();
        lock(&self.free).push(self.number);
    }
}
