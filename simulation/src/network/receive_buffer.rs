use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;

use super::options::RECEIVE_BUFFER;

/// The bytes that were received and are not read yet.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    chunks: VecDeque<Bytes>,
    length: usize,
    /// Segments after a gap, by their sequence number, with true for a FIN after the data.
    ahead: BTreeMap<u64, (Bytes, bool)>,
    /// The sequence number of the next byte.
    next: u64,
    /// True once all bytes before the peer's FIN have been received.
    finished: bool,
}

impl ReceiveBuffer {
    pub(super) fn new(next: u64) -> Self {
        Self { chunks: VecDeque::new(), length: 0, ahead: BTreeMap::new(), next, finished: false }
    }

    /// Returns the sequence number to acknowledge.
    pub(super) fn next(&self) -> u64 {
        self.next + u64::from(self.finished)
    }

    /// Returns the number of bytes that can be received.
    pub(super) fn window(&self) -> u64 {
        RECEIVE_BUFFER.saturating_sub(self.length as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns true once all bytes before the peer's FIN have been received.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Adds a segment. Returns true if bytes or the end of the stream can now be read. Bytes beyond the window are
    /// dropped.
    pub(super) fn receive(&mut self, number: u64, data: Bytes, fin: bool) -> bool {
        if number > self.next {
            if number - self.next < RECEIVE_BUFFER {
                self.ahead.insert(number, (data, fin));
            }
            return false;
        }
        let before = (self.length, self.finished);
        self.append(number, data, fin);
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() <= self.next) {
            let (number, (data, fin)) = entry.remove_entry();
            self.append(number, data, fin);
        }
        before != (self.length, self.finished)
    }

    fn append(&mut self, number: u64, mut data: Bytes, fin: bool) {
        if self.finished {
            return;
        }
        let end = number + data.len() as u64;
        let known = usize::try_from(self.next - number).unwrap_or(usize::MAX).min(data.len());
        data.advance(known);
        data.truncate(usize::try_from(self.window()).unwrap_or(usize::MAX));
        if !data.is_empty() {
            self.next += data.len() as u64;
            self.length += data.len();
            self.chunks.push_back(data);
        }
        self.finished = fin && self.next == end;
    }

    /// Moves bytes into `buf`.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) {
        while let Some(first) = self.chunks.front_mut().filter(|_| buf.remaining() > 0) {
            let count = first.len().min(buf.remaining());
            buf.put_slice(&first[..count]);
            first.advance(count);
            if first.is_empty() {
                self.chunks.pop_front();
            }
            self.length -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut ReceiveBuffer) -> Vec<u8> {
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        buffer.read(&mut buf);
        buf.filled().to_vec()
    }

    #[test]
    fn delivers_bytes_in_order_and_once() {
        let mut buffer = ReceiveBuffer::new(1);
        assert!(!buffer.receive(4, "def".into(), true));
        assert!(buffer.receive(1, "abc".into(), false));
        assert_eq!((buffer.next(), buffer.is_finished()), (8, true));
        assert!(!buffer.receive(1, "abc".into(), false));
        assert_eq!(read(&mut buffer), b"abcdef");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_finished_stream_takes_no_more_bytes() {
        let mut buffer = ReceiveBuffer::new(1);
        assert!(buffer.receive(1, "ab".into(), true));
        assert!(!buffer.receive(1, "abcd".into(), false));
        assert_eq!(read(&mut buffer), b"ab");
    }
}
