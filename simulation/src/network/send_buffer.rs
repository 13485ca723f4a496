use std::collections::VecDeque;

use bytes::Bytes;

use super::options::{SEGMENT, SEND_BUFFER};

/// The bytes that were written and are not acknowledged yet.
#[derive(Debug)]
pub(super) struct SendBuffer {
    chunks: VecDeque<Bytes>,
    /// The sequence number of the first byte.
    start: u64,
    length: usize,
}

impl SendBuffer {
    pub(super) fn new(start: u64) -> Self {
        Self { chunks: VecDeque::new(), start, length: 0 }
    }

    /// Returns the sequence number after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Returns the number of bytes that can be written.
    pub(super) fn space(&self) -> usize {
        SEND_BUFFER.saturating_sub(self.length)
    }

    /// Appends bytes, as many as there is space for, and returns their number.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(self.space())];
        if !bytes.is_empty() {
            self.chunks.push_back(Bytes::copy_from_slice(bytes));
            self.length += bytes.len();
        }
        bytes.len()
    }

    /// Drops the bytes before a sequence number.
    pub(super) fn acknowledge(&mut self, number: u64) {
        while let Some(first) = self.chunks.front_mut() {
            let acknowledged = usize::try_from(number.saturating_sub(self.start)).unwrap_or(usize::MAX);
            if acknowledged == 0 {
                return;
            }
            let dropped = acknowledged.min(first.len());
            drop(first.split_to(dropped));
            if first.is_empty() {
                self.chunks.pop_front();
            }
            self.start += dropped as u64;
            self.length -= dropped;
        }
        self.start = self.start.max(number);
    }

    /// Returns the bytes of the segment that starts at a sequence number, at most `limit`.
    pub(super) fn segment(&self, number: u64, limit: u64) -> Bytes {
        let mut offset = usize::try_from(number - self.start).unwrap_or(usize::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(SEGMENT);
        for chunk in &self.chunks {
            if offset < chunk.len() {
                return chunk.slice(offset..chunk.len().min(offset.saturating_add(limit)));
            }
            offset -= chunk.len();
        }
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_that_are_not_acknowledged() {
        let mut buffer = SendBuffer::new(1);
        assert_eq!((buffer.write(b"abc"), buffer.write(b"defg"), buffer.end()), (3, 4, 8));
        assert_eq!(buffer.segment(2, 100), "bc");
        buffer.acknowledge(5);
        assert_eq!(
            (buffer.segment(5, 2), buffer.segment(7, 9), buffer.segment(8, 9)),
            ("ef".into(), "g".into(), "".into())
        );
        buffer.acknowledge(8);
        assert_eq!((buffer.end(), buffer.space()), (8, SEND_BUFFER));
    }
}
