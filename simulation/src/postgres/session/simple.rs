//! The simple query protocol.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ended, Session, transaction::Block};
use crate::postgres::{error::Report, protocol::Fields};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    /// Executes a Query message.
    pub(super) async fn simple(&mut self, mut fields: Fields<'_>) -> Result<(), Ended> {
        self.skips = false;
        let result = match fields.text() {
            Ok(text) => self.statements(text).await,
            Err(report) => Err(report),
        };
        if let Err(report) = result {
            self.failed(report)?;
        }
        self.ready().await
    }

    /// Executes the statements of one text. Outside of a block, they form one transaction.
    async fn statements(&mut self, text: &str) -> Result<(), Report> {
        let statements = self.server.parse(text)?;
        if statements.is_empty() {
            self.wire.output.message(b'I', &[]);
        }
        for (index, parsed) in statements.iter().enumerate() {
            let outcome = self.execute(parsed, &[]).await?;
            if let Some((columns, rows)) = &outcome.rows {
                self.describe_rows(columns, &[]);
                for row in rows {
                    let row = row.iter().map(|value| value.encode(false)).collect::<Result<Vec<_>, _>>()?;
                    self.wire.output.row(&row);
                }
            }
            let last = index + 1 == statements.len();
            if last && self.transaction.block == Block::None {
                // The commit comes before the acknowledgement of the statement.
                self.commit().await?;
            }
            self.wire.output.complete(&outcome.tag);
        }
        Ok(())
    }
}
