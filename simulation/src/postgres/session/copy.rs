//! `COPY history FROM STDIN`.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Session, execute::Outcome, requests::interruptible};
use crate::postgres::{error::Report, history::Arrival, protocol::Fields, sql::leading_comment};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    /// Receives rows in text format: one id on each line. Ignores Flush and Sync while it receives rows, as the real
    /// server does.
    pub(super) async fn copy_in(&mut self) -> Result<Outcome, Report> {
        if self.transaction.is_read_only() {
            return Err(Report::read_only("COPY FROM"));
        }
        // Text format, and one column in text format.
        self.wire.output.message(b'G', &[0, 0, 1, 0, 0]);
        let handle = self.registration.handle().clone();
        interruptible(&handle, self.wire.flush()).await?.map_err(|_| lost())?;
        let mut data = Vec::new();
        loop {
            let message = interruptible(&handle, self.wire.message()).await?.map_err(|_| lost())?;
            self.server.unhung().await;
            let (kind, body) = message.ok_or_else(lost)?;
            match kind {
                b'd' => data.extend_from_slice(&body),
                b'c' => break,
                b'f' => {
                    let reason = Fields(&body).text()?;
                    return Err(Report::error("57014", format!("COPY from stdin failed: {reason}")));
                }
                b'H' | b'S' => {}
                other => {
                    self.arrived_in_copy(other, &body);
                    let text = format!("unexpected message type 0x{other:02X} during COPY from stdin");
                    return Err(Report::error("08P01", text));
                }
            }
        }
        let text = String::from_utf8(data).map_err(|_| Report::error("22021", "invalid byte sequence for encoding"))?;
        let invalid = |line: &str| Report::error("22P02", format!("invalid input syntax for type bigint: \"{line}\""));
        let ids: Result<Vec<i64>, _> = text.lines().map(|line| line.parse().map_err(|_| invalid(line))).collect();
        let ids = ids?;
        self.transaction.inserts.extend_from_slice(&ids);
        Ok(Outcome { rows: None, tag: format!("COPY {}", ids.len()) })
    }

    /// Records that a statement arrived before the end of the rows.
    fn arrived_in_copy(&self, kind: u8, body: &[u8]) {
        let mut fields = Fields(body);
        let text = match kind {
            b'Q' => fields.text().ok(),
            b'P' => fields.text().and_then(|_| fields.text()).ok(),
            _ => None,
        };
        let Some(comment) = text.and_then(leading_comment) else { return };
        let arrival = Arrival { in_copy: true, ..self.arrival(comment, Instant::now()) };
        self.server.cluster.history.arrived(arrival);
    }
}

/// Reports that the client has closed the connection before the end of the rows.
fn lost() -> Report {
    Report::fatal("08006", "unexpected EOF on client connection with an open transaction")
}
