//! The execution of statements.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Prepared, Session, transaction::Block};
use crate::postgres::{
    error::Report,
    history::Arrival,
    sql::{Discard, Operand, Parsed, Statement, Value},
};

/// The parameter with which a caller marks its session.
const MARKER: &str = "podpool.marker";

/// The outcome of a statement.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The rows of a query.
    pub(super) rows: Option<Vec<Vec<Value>>>,
    /// The command tag.
    pub(super) tag: String,
}

impl Outcome {
    fn tag(tag: impl Into<String>) -> Self {
        Self { rows: None, tag: tag.into() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    /// Fails if a statement is not allowed in a transaction that has failed.
    pub(super) fn check_block(&self, statement: Option<&Statement>) -> Result<(), Report> {
        if self.transaction.block == Block::Failed && !statement.is_some_and(Statement::ends_transaction) {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error("25P02", text));
        }
        Ok(())
    }

    /// Executes one statement. Does not end an implicit transaction.
    pub(super) async fn execute(&mut self, parsed: &Parsed, parameters: &[Value]) -> Result<Outcome, Report> {
        let Parsed { statement, comment } = parsed;
        if let Some(comment) = comment {
            self.server.cluster.history.arrived(self.arrival(comment, Instant::now()));
        }
        let outcome = self.run_statement(statement, comment.as_deref(), parameters).await;
        self.busy_until = Some(Instant::now());
        outcome
    }

    /// Returns the record of a statement that arrives at `now`.
    pub(super) fn arrival(&self, comment: &str, now: Instant) -> Arrival {
        Arrival {
            server: self.server.name().to_owned(),
            at: now,
            comment: comment.to_owned(),
            in_transaction: self.transaction.block != Block::None,
            in_copy: false,
            busy_until: self.busy_until,
            marker: self.parameters.session.get(MARKER).cloned(),
        }
    }

    async fn run_statement(
        &mut self,
        statement: &Statement,
        comment: Option<&str>,
        parameters: &[Value],
    ) -> Result<Outcome, Report> {
        self.check_block(Some(statement))?;
        self.begin();
        let duration = self.server.lock().settings.statement;
        self.work(duration).await?;
        match statement {
            Statement::Begin(Some(false)) if self.transaction.began_in_recovery() => Err(read_write_in_recovery()),
            Statement::Begin(mode) => Ok(self.begin_block(*mode)),
            Statement::Commit => self.commit_block().await,
            Statement::Rollback => Ok(self.roll_back_block()),
            Statement::CopyIn => self.copy_in().await,
            Statement::Insert(ids) => self.insert(ids, parameters),
            Statement::Query(query) => {
                let rows = self.evaluate(query, parameters, comment).await?;
                let tag = match query {
                    crate::postgres::sql::Query::Show(_) => "SHOW".into(),
                    _ => format!("SELECT {}", rows.len()),
                };
                Ok(Outcome { rows: Some(rows), tag })
            }
            other => self.utility(other),
        }
    }

    fn begin_block(&mut self, mode: Option<bool>) -> Outcome {
        if self.transaction.block == Block::Open {
            let report = Report::warning("25001", "there is already a transaction in progress");
            self.wire.output.report(&report);
        }
        self.transaction.block = Block::Open;
        self.transaction.read_only = mode.unwrap_or(self.transaction.read_only);
        Outcome::tag("BEGIN")
    }

    async fn commit_block(&mut self) -> Result<Outcome, Report> {
        match self.transaction.block {
            Block::Failed => return Ok(self.roll_back_block()),
            Block::None => self.warn_no_block(),
            Block::Open => {}
        }
        self.commit().await?;
        Ok(Outcome::tag("COMMIT"))
    }

    fn roll_back_block(&mut self) -> Outcome {
        if self.transaction.block == Block::None {
            self.warn_no_block();
        }
        self.roll_back();
        Outcome::tag("ROLLBACK")
    }

    fn warn_no_block(&mut self) {
        self.wire.output.report(&Report::warning("25P01", "there is no transaction in progress"));
    }

    fn insert(&mut self, ids: &[Operand], parameters: &[Value]) -> Result<Outcome, Report> {
        if self.transaction.is_read_only() {
            return Err(Report::read_only("INSERT"));
        }
        for id in ids {
            match operand(id, parameters)? {
                Value::Int8(id) => self.transaction.inserts.push(id),
                _ => {
                    let text = "null value in column \"id\" of relation \"history\" violates not-null constraint";
                    return Err(Report::error("23502", text));
                }
            }
        }
        Ok(Outcome::tag(format!("INSERT 0 {}", ids.len())))
    }

    /// Executes a statement that changes the session.
    fn utility(&mut self, statement: &Statement) -> Result<Outcome, Report> {
        Ok(Outcome::tag(match statement {
            Statement::Set { name, value, local } => {
                self.parameters.set(name, value.clone(), *local)?;
                "SET"
            }
            Statement::SetTransaction(read_only) => {
                if !read_only && self.transaction.began_in_recovery() {
                    return Err(read_write_in_recovery());
                }
                self.transaction.read_only = *read_only;
                "SET"
            }
            Statement::Reset(None) => {
                self.parameters.reset_all();
                "RESET"
            }
            Statement::Reset(Some(name)) => {
                self.parameters.set(name, None, false)?;
                "RESET"
            }
            Statement::Listen(channel) => {
                if self.transaction.began_in_recovery() {
                    return Err(Report::error("25006", "cannot execute LISTEN during recovery"));
                }
                self.channels.insert(channel.clone());
                "LISTEN"
            }
            Statement::Unlisten(channel) => {
                self.channels.retain(|listened| channel.as_ref().is_some_and(|channel| channel != listened));
                "UNLISTEN"
            }
            Statement::Prepare(name, parsed) => {
                if self.prepared.contains_key(name) {
                    return Err(Report::error("42P05", format!("prepared statement \"{name}\" already exists")));
                }
                let prepared = Prepared { parsed: Some((**parsed).clone()), from_sql: true };
                self.prepared.insert(name.clone(), prepared);
                "PREPARE"
            }
            Statement::Deallocate(None) => {
                self.prepared.clear();
                "DEALLOCATE ALL"
            }
            Statement::Deallocate(Some(name)) => {
                if self.prepared.remove(name).is_none() {
                    return Err(Report::error("26000", format!("prepared statement \"{name}\" does not exist")));
                }
                "DEALLOCATE"
            }
            Statement::CreateTemp(name) => {
                if self.transaction.is_read_only() {
                    return Err(Report::read_only("CREATE TABLE"));
                }
                if !self.tables.insert(name.clone()) {
                    return Err(Report::error("42P07", format!("relation \"{name}\" already exists")));
                }
                "CREATE TABLE"
            }
            Statement::Discard(Discard::All) => {
                if self.transaction.block != Block::None {
                    return Err(discard_in_transaction());
                }
                self.parameters.session.clear();
                self.prepared.clear();
                self.channels.clear();
                self.tables.clear();
                "DISCARD ALL"
            }
            Statement::Discard(Discard::Temp) => {
                self.tables.clear();
                "DISCARD TEMP"
            }
            Statement::Discard(Discard::Plans) => "DISCARD PLANS",
            Statement::Discard(Discard::Sequences) => "DISCARD SEQUENCES",
            Statement::CloseAll => "CLOSE CURSOR ALL",
            Statement::Begin(_)
            | Statement::Commit
            | Statement::CopyIn
            | Statement::Insert(_)
            | Statement::Query(_)
            | Statement::Rollback => return Err(Report::error("XX000", "unexpected statement")),
        }))
    }
}

/// Returns the error of a `DISCARD ALL` in a transaction.
pub(super) fn discard_in_transaction() -> Report {
    Report::error("25001", "DISCARD ALL cannot run inside a transaction block")
}

fn read_write_in_recovery() -> Report {
    Report::error("0A000", "cannot set transaction read-write mode during recovery")
}

/// Returns the value of a constant or a parameter.
pub(super) fn operand(operand: &Operand, parameters: &[Value]) -> Result<Value, Report> {
    match operand {
        Operand::Constant(value) => Ok(value.clone()),
        Operand::Parameter(number) => {
            let missing = || Report::error("42P02", format!("there is no parameter ${number}"));
            number.checked_sub(1).and_then(|index| parameters.get(index)).cloned().ok_or_else(missing)
        }
    }
}
