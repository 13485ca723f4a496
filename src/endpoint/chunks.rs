use crate::sync::Arc;

/// Places a chunk. Of a known length, so that a number's place in it needs no check.
pub(crate) const CHUNK: usize = 64;

/// One chunk.
pub(crate) type Chunk<T> = Arc<[T; CHUNK]>;

/// Things by number, in chunks that are shared with every clone. The first is at hand: few sets have more.
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
        Self { first: fresh(), more: Vec::new() }
    }
}

fn fresh<T: Default>() -> Chunk<T> {
    Arc::new(std::array::from_fn(|_| T::default()))
}

impl<T> Chunks<T> {
    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        (1 + self.more.len()) * CHUNK
    }

    /// What stands at this place, which must be one that there is.
    #[inline(always)]
    pub(crate) fn get(&self, number: u32) -> &T {
        &self.chunk(number)[number as usize % CHUNK]
    }

    /// What stands at this place, if there is one.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        if number < CHUNK {
            return Some(&self.first[number]);
        }
        self.more.get(number / CHUNK - 1).map(|chunk| &chunk[number % CHUNK])
    }

    /// The chunk of this place.
    #[inline(always)]
    pub(crate) fn chunk(&self, number: u32) -> &Chunk<T> {
        if (number as usize) < CHUNK { &self.first } else { &self.more[number as usize / CHUNK - 1] }
    }

    /// The only chunk, where there is one only.
    #[inline]
    pub(crate) fn only(&self) -> Option<&[T; CHUNK]> {
        self.more.is_empty().then_some(&*self.first)
    }

    /// Everything, in the order of the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.more).flat_map(|chunk| chunk.iter())
    }
}

impl<T: Default> Chunks<T> {
    /// Adds a chunk.
    pub(crate) fn grow(&mut self) {
        self.more.push(fresh());
    }
}

impl<T: Clone + Default> Chunks<T> {
    /// Puts something in a place. Clones keep what they have: the chunk is copied where it is shared.
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
