//! The extended query protocol.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ended, Prepared, Session, transaction::Block};
use crate::postgres::{
    error::Report,
    protocol::Fields,
    sql::{Parsed, Statement, Type, Value},
};

/// A bound statement.
#[derive(Debug)]
pub(super) struct Portal {
    parsed: Option<Parsed>,
    parameters: Vec<Value>,
    /// The formats of the columns: none for text, one for all columns, or one for each.
    formats: Vec<i16>,
    /// The rows that were not sent yet, after the first execution.
    pending: Option<(std::vec::IntoIter<Vec<Value>>, String)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    pub(super) async fn parse(&mut self, mut fields: Fields<'_>) -> Result<(), Report> {
        let (name, text) = (fields.text()?.to_owned(), fields.text()?);
        let statements = self.server.parse(text)?;
        if statements.len() > 1 {
            return Err(Report::error("42601", "cannot insert multiple commands into a prepared statement"));
        }
        let parsed = statements.first().cloned();
        self.check_block(parsed.as_ref().map(|parsed| &parsed.statement))?;
        if !name.is_empty() && self.prepared.contains_key(&name) {
            return Err(Report::error("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        self.prepared.insert(name, Prepared { parsed, from_sql: false });
        self.wire.output.message(b'1', &[]);
        Ok(())
    }

    pub(super) fn bind(&mut self, mut fields: Fields<'_>) -> Result<(), Report> {
        let (portal, name) = (fields.text()?.to_owned(), fields.text()?);
        let parsed = self.statement(name)?.parsed.clone();
        self.check_block(parsed.as_ref().map(|parsed| &parsed.statement))?;
        let formats = fields.list()?;
        let kinds = parsed.as_ref().map(|parsed| parsed.statement.parameters()).unwrap_or_default();
        let count = fields.i16()?;
        if usize::try_from(count).ok() != Some(kinds.len()) {
            let text = format!(
                "bind message supplies {count} parameters, but prepared statement \"{name}\" requires {}",
                kinds.len()
            );
            return Err(Report::error("08P01", text));
        }
        let mut parameters = Vec::new();
        for (index, kind) in kinds.into_iter().enumerate() {
            let value = fields.value()?.map(|bytes| kind.decode(bytes, is_binary(&formats, index)));
            parameters.push(value.transpose()?.unwrap_or(Value::Null));
        }
        let formats = fields.list()?;
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(Report::error("42P03", format!("cursor \"{portal}\" already exists")));
        }
        self.begin();
        self.portals.insert(portal, Portal { parsed, parameters, formats, pending: None });
        self.wire.output.message(b'2', &[]);
        Ok(())
    }

    pub(super) fn describe(&mut self, mut fields: Fields<'_>) -> Result<(), Report> {
        let (kind, name) = (fields.byte()?, fields.text()?);
        let (parsed, formats) = if kind == b'S' {
            let parsed = self.statement(name)?.parsed.clone();
            let kinds = parsed.as_ref().map(|parsed| parsed.statement.parameters()).unwrap_or_default();
            let oids: Vec<_> = kinds.into_iter().map(Type::oid).collect();
            self.wire.output.parameter_description(&oids);
            (parsed, Vec::new())
        } else {
            let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
            (portal.parsed.clone(), portal.formats.clone())
        };
        match parsed.map(|parsed| parsed.statement) {
            Some(Statement::Query(query)) => self.describe_rows(&query.columns(), &formats),
            _ => self.wire.output.message(b'n', &[]),
        }
        Ok(())
    }

    /// Appends the description of result columns.
    pub(super) fn describe_rows<T: AsRef<str>>(&mut self, columns: &[(T, Type)], formats: &[i16]) {
        let described = columns.iter().enumerate().map(|(index, (name, kind))| {
            (name.as_ref(), kind.oid(), kind.length(), i16::from(is_binary(formats, index)))
        });
        self.wire.output.row_description(&described.collect::<Vec<_>>());
    }

    /// Executes an Execute message.
    pub(super) async fn run_portal(&mut self, mut fields: Fields<'_>) -> Result<(), Report> {
        let (name, limit) = (fields.text()?.to_owned(), fields.i32()?);
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let Some(parsed) = &portal.parsed else {
            self.wire.output.message(b'I', &[]);
            return Ok(());
        };
        let (mut rows, tag) = match portal.pending.take() {
            Some(pending) => pending,
            None => {
                let outcome = self.execute(parsed, &portal.parameters).await?;
                (outcome.rows.unwrap_or_default().into_iter(), outcome.tag)
            }
        };
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        for row in rows.by_ref().take(limit) {
            let encode = |(index, value): (usize, &Value)| value.encode(is_binary(&portal.formats, index));
            let row = row.iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>()?;
            self.wire.output.row(&row);
        }
        if rows.len() > 0 {
            self.wire.output.message(b's', &[]);
            portal.pending = Some((rows, tag));
        } else {
            self.wire.output.complete(&tag);
            portal.pending = Some((Vec::new().into_iter(), "SELECT 0".into()));
        }
        // A statement that ended the transaction has dropped its portals.
        if !parsed.statement.ends_transaction() {
            self.portals.insert(name, portal);
        }
        Ok(())
    }

    /// Executes a Close message.
    pub(super) fn close(&mut self, mut fields: Fields<'_>) -> Result<(), Report> {
        let (kind, name) = (fields.byte()?, fields.text()?);
        if kind == b'S' {
            drop(self.prepared.remove(name))
        } else {
            drop(self.portals.remove(name))
        }
        self.wire.output.message(b'3', &[]);
        Ok(())
    }

    /// Executes a Sync message.
    pub(super) async fn sync(&mut self) -> Result<(), Ended> {
        self.skips = false;
        if self.transaction.block == Block::None
            && let Err(report) = self.commit().await
        {
            self.failed(report)?;
        }
        self.ready().await
    }

    fn statement(&self, name: &str) -> Result<&Prepared, Report> {
        let missing = || match name {
            "" => Report::error("26000", "unnamed prepared statement does not exist"),
            name => Report::error("26000", format!("prepared statement \"{name}\" does not exist")),
        };
        self.prepared.get(name).ok_or_else(missing)
    }
}

fn no_portal(name: &str) -> Report {
    Report::error("34000", format!("portal \"{name}\" does not exist"))
}

/// Returns true if the format of a column or parameter is binary. One format stands for all.
fn is_binary(formats: &[i16], index: usize) -> bool {
    let format = if formats.len() == 1 { formats.first() } else { formats.get(index) };
    format == Some(&1)
}
