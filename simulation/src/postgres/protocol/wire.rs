//! Reads and writes messages on the stream of one session.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    super::{certificate::Certificate, error::Report},
    Output,
    stream::Stream,
};

/// Maximum length of a message, against clients that send garbage.
const MAX_LENGTH: usize = 1 << 24;

/// The stream of one session, with its buffers.
#[derive(Debug)]
pub(in crate::postgres) struct Wire<S> {
    stream: Stream<S>,
    input: Vec<u8>,
    pub(in crate::postgres) output: Output,
    /// True while a part of the output was written.
    writing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(in crate::postgres) fn new(stream: S) -> Self {
        let stream = Stream::Plain(stream);
        Self { stream, input: Vec::new(), output: Output::default(), writing: false }
    }

    /// Reads the first message of a connection, which has no type. Returns `None` at the end of the stream.
    pub(in crate::postgres) async fn startup(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.packet(0).await.map(|packet| packet.map(|packet| packet[4..].to_vec()))
    }

    /// Reads one message: its type and its body. Returns `None` at the end of the stream. Cancel-safe.
    pub(in crate::postgres) async fn message(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        self.packet(1).await.map(|packet| packet.map(|packet| (packet[0], packet[5..].to_vec())))
    }

    /// Reads a packet whose length begins after `header` bytes.
    async fn packet(&mut self, header: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(bytes) = self.input.get(header..header + 4) {
                let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
                if !(4..=MAX_LENGTH).contains(&length) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid length of message"));
                }
                if self.input.len() >= header + length {
                    return Ok(Some(self.input.drain(..header + length).collect()));
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends the encoded messages.
    pub(in crate::postgres) async fn flush(&mut self) -> io::Result<()> {
        let bytes = self.output.take();
        self.writing = true;
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        self.writing = false;
        Ok(())
    }

    /// Sends a last message as far as the stream takes it without waiting, and closes the stream.
    pub(in crate::postgres) async fn close(&mut self, last: Option<&Report>) {
        if let Some(report) = last.filter(|_| !self.writing) {
            self.output.report(report);
            // The stream is closed, whether or not the message could be sent.
            let _ = tokio::time::timeout(std::time::Duration::ZERO, self.flush()).await;
        }
        let _ = tokio::time::timeout(std::time::Duration::ZERO, self.stream.shutdown()).await;
    }

    /// Encrypts the stream with TLS. Fails if the client has sent more than the request for encryption.
    pub(in crate::postgres) async fn encrypt(&mut self, certificate: &Certificate) -> io::Result<()> {
        if !self.input.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "unencrypted data after the request for encryption",
            ));
        }
        self.stream.encrypt(certificate).await
    }

    /// Sends a single byte, the response to a request for encryption.
    pub(in crate::postgres) async fn raw(&mut self, byte: u8) -> io::Result<()> {
        self.stream.write_all(&[byte]).await?;
        self.stream.flush().await
    }
}
