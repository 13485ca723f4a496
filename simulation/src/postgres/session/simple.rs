//! The simple query protocol.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ended, Session, execute::discard_in_transaction, transaction::Block};
use crate::postgres::{
    error::Report,
    protocol::Fields,
    sql::{Discard, Statement},
};

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
            self.check_block(Some(&parsed.statement))?;
            if statements.len() > 1 && parsed.statement == Statement::Discard(Discard::All) {
                // The statements of one text form a transaction, even without `BEGIN`.
                return Err(discard_in_transaction());
            }
            if let Statement::Query(query) = &parsed.statement {
                self.describe_rows(&query.columns(), &[]);
            }
            let outcome = self.execute(parsed, &[]).await?;
            if let Some(rows) = &outcome.rows {
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
