//! A growable array that is stored in chunks. Clones of the array share the chunks.

use crate::sync::Arc;

/// Number of elements in a chunk. It is a constant, so that an index into a chunk needs no bounds check.
pub(crate) const CHUNK: usize = 64;

/// A chunk, shared by reference counting.
pub(crate) type Chunk<T> = Arc<[T; CHUNK]>;

/// An array in chunks. Cloning the array increments one reference count per chunk.
///
/// The first chunk is stored inline, which saves an indirection. Most arrays have only this chunk, because most pools
/// have at most 64 Pods.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    first: Chunk<T>,
    more: Vec<Chunk<T>>,
}

impl<T> Clone for Chunks<T> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), more: self.more.clone() }
    }
}

impl<T: Default> Default for Chunks<T> {
    fn default() -> Self {
        Self { first: new_chunk(), more: Vec::new() }
    }
}

fn new_chunk<T: Default>() -> Chunk<T> {
    Arc::new(std::array::from_fn(|_| T::default()))
}

impl<T> Chunks<T> {
    /// Returns the number of elements: [`CHUNK`] for each chunk.
    pub(crate) fn len(&self) -> usize {
        (1 + self.more.len()) * CHUNK
    }

    /// Returns the element with this number. Panics if the array has no such element.
    #[inline(always)]
    pub(crate) fn get(&self, number: u32) -> &T {
        &self.chunk(number)[number as usize % CHUNK]
    }

    /// Returns the element with this number, or `None` if the array has no such element.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        if number < CHUNK {
            return Some(&self.first[number]);
        }
        self.more.get(number / CHUNK - 1).map(|chunk| &chunk[number % CHUNK])
    }

    /// Returns the chunk of the element with this number. Panics if the array has no such element.
    #[inline(always)]
    pub(crate) fn chunk(&self, number: u32) -> &Chunk<T> {
        if (number as usize) < CHUNK { &self.first } else { &self.more[number as usize / CHUNK - 1] }
    }

    /// Returns the first chunk if it is the only one.
    #[inline]
    pub(crate) fn only(&self) -> Option<&[T; CHUNK]> {
        self.more.is_empty().then_some(&*self.first)
    }

    /// Returns all elements, by ascending number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.more).flat_map(|chunk| chunk.iter())
    }
}

impl<T: Default> Chunks<T> {
    /// Adds a chunk of default values.
    pub(crate) fn grow(&mut self) {
        self.more.push(new_chunk());
    }
}

impl<T: Clone + Default> Chunks<T> {
    /// Replaces an element, and grows the array if necessary. Clones keep the old value, because a shared chunk is
    /// copied first.
    pub(crate) fn set(&mut self, number: u32, value: T) {
        while number as usize >= self.len() {
            self.grow();
        }
        let chunk = match (number as usize / CHUNK).checked_sub(1) {
            None => &mut self.first,
            Some(more) => &mut self.more[more],
        };
        Arc::make_mut(chunk)[number as usize % CHUNK] = value;
    }
}
