//! A simulated server session, which executes a few statements on numbers instead of rows. It injects at most one fault
//! and knows which numbers are committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::yield_now,
};

/// The fields of an ErrorResponse that a fault contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorFields {
    pub(super) sqlstate: &'static str,
    /// True if the response has the field `V`, which contains the severity. The field `S` is always present.
    pub(super) untranslated: bool,
}

/// A fault that replaces a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    None,
    /// The statement fails.
    Error(ErrorFields),
    /// The statement is executed, but a pooler responds with an `ERROR` because it has lost its server.
    PoolerError(ErrorFields),
    /// The statement is executed, but the session ends with a `FATAL`, with or without a ReadyForQuery.
    Fatal(ErrorFields, bool),
    /// The statement is executed, but the connection ends after this number of bytes of the message.
    Close(usize),
    /// The statement fails, and the connection ends.
    ErrorAndClose(ErrorFields),
    /// The message has an invalid length, so that the driver cannot parse it.
    Garbage,
    /// The next ReadyForQuery is sent twice.
    StrayReady,
}

/// The reason why a message was not sent.
enum Stop {
    /// The statement has failed.
    Failed,
    /// The session has ended.
    Ended,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

pub(super) struct Session {
    pub(super) stream: DuplexStream,
    /// Number of bytes of each write.
    pub(super) piece: usize,
    pub(super) fault: Fault,
    /// Number of messages before the one that the fault replaces.
    pub(super) fault_after: usize,
    pub(super) committed: BTreeSet<u32>,
    /// The numbers that the current transaction has inserted.
    open: Vec<u32>,
    status: u8,
    statement: String,
    /// The texts of the prepared statements, by their names.
    prepared: BTreeMap<String, String>,
    /// True after an error, until the next Sync.
    skipping: bool,
    copying: Option<u32>,
}

impl Session {
    pub(super) fn new(stream: DuplexStream, piece: usize, fault: Fault, fault_after: usize) -> Self {
        Self {
            stream,
            piece,
            fault,
            fault_after,
            committed: BTreeSet::new(),
            open: Vec::new(),
            status: b'I',
            statement: String::new(),
            prepared: BTreeMap::new(),
            skipping: false,
            copying: None,
        }
    }

    /// Runs the session until its end and returns the committed numbers.
    pub(super) async fn run(mut self) -> BTreeSet<u32> {
        drop(self.serve().await);
        self.committed
    }

    async fn serve(&mut self) -> Result<(), Stop> {
        let length = self.stream.read_u32().await?;
        self.skip(length).await?;
        for (kind, body) in [(b'R', &[0; 4][..]), (b'S', b"in_hot_standby\0off\0"), (b'Z', b"I")] {
            self.write(&message(kind, body)).await?;
        }
        loop {
            let kind = self.stream.read_u8().await?;
            let length = self.stream.read_u32().await?;
            let body = self.skip(length).await?;
            if kind == b'X' {
                return Ok(());
            }
            match self.respond(kind, &body).await {
                Err(Stop::Failed) => self.failed(kind == b'Q').await?,
                result => result?,
            }
        }
    }

    async fn skip(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn respond(&mut self, kind: u8, body: &[u8]) -> Result<(), Stop> {
        match kind {
            b'S' if self.copying.is_some() => Ok(()),
            b'S' => {
                self.skipping = false;
                self.commit_implicit();
                self.ready().await
            }
            _ if self.skipping => Ok(()),
            b'Q' => self.query(text(body)).await,
            b'P' => {
                let name = text(body);
                self.statement = text(&body[name.len() + 1..]).to_owned();
                self.prepared.insert(name.to_owned(), self.statement.clone());
                self.send(b'1', b"", |_| {}).await
            }
            b'D' => {
                self.send(b't', &[0, 0], |_| {}).await?;
                self.send(b'n', b"", |_| {}).await
            }
            b'B' => {
                let name = text(&body[text(body).len() + 1..]);
                self.statement = self.prepared.get(name).cloned().unwrap_or_default();
                self.send(b'2', b"", |_| {}).await
            }
            b'C' => self.send(b'3', b"", |_| {}).await,
            b'E' => {
                let statement = self.statement.clone();
                self.execute(&statement, false).await
            }
            b'f' if self.copying.take().is_some() => {
                self.write(&error("ERROR", "57014", true)).await?;
                Err(Stop::Failed)
            }
            b'c' => match self.copying.take() {
                Some(number) => self.send(b'C', b"COPY 1\0", |session| session.open.push(number)).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn query(&mut self, text: &str) -> Result<(), Stop> {
        let statements: Vec<_> = text.split(';').map(str::trim).collect();
        for (i, statement) in statements.iter().enumerate() {
            self.execute(statement, i + 1 == statements.len()).await?;
        }
        self.ready().await
    }

    /// Executes a statement. `last` is true if it is the last one of a simple query: its transaction is committed
    /// before its CommandComplete.
    async fn execute(&mut self, statement: &str, last: bool) -> Result<(), Stop> {
        let (verb, rest) = statement.split_once(' ').unwrap_or((statement, ""));
        if self.status == b'E' && !matches!(verb, "COMMIT" | "ROLLBACK") {
            self.write(&error("ERROR", "25P02", true)).await?;
            return Err(Stop::Failed);
        }
        let number = rest.parse().unwrap_or_default();
        match verb {
            "FAIL" => {
                self.write(&error("ERROR", "23505", true)).await?;
                return Err(Stop::Failed);
            }
            "COPY" => return self.send(b'G', b"\0\0\0", |session| session.copying = Some(number)).await,
            _ => {}
        }
        let tag = match (verb, self.status) {
            ("COMMIT", b'E') => "ROLLBACK".to_owned(),
            ("INSERT", _) => "INSERT 0 1".to_owned(),
            ("SELECT", _) => "SELECT 1".to_owned(),
            _ => verb.to_owned(),
        };
        let apply = |session: &mut Self| {
            match verb {
                "INSERT" => session.open.push(number),
                "BEGIN" => session.status = b'T',
                "COMMIT" | "ROLLBACK" => {
                    let numbers = mem::take(&mut session.open);
                    if verb == "COMMIT" && session.status != b'E' {
                        session.committed.extend(numbers);
                    }
                    session.status = if rest == "AND CHAIN" { b'T' } else { b'I' };
                }
                _ => {}
            }
            if last {
                session.commit_implicit();
            }
        };
        self.send(b'C', format!("{tag}\0").as_bytes(), apply).await
    }

    fn commit_implicit(&mut self) {
        if self.status == b'I' {
            self.committed.extend(self.open.drain(..));
        }
    }

    /// Ends a failed statement.
    async fn failed(&mut self, simple: bool) -> Result<(), Stop> {
        self.copying = None;
        self.open.clear();
        self.status = if self.status == b'I' { b'I' } else { b'E' };
        self.skipping = !simple;
        if !simple {
            return Ok(());
        }
        match self.ready().await {
            Err(Stop::Failed) => Err(Stop::Ended),
            result => result,
        }
    }

    async fn ready(&mut self) -> Result<(), Stop> {
        self.send(b'Z', &[self.status], |_| {}).await
    }

    /// Applies the effect of a message and sends it, unless a fault replaces it.
    async fn send(&mut self, kind: u8, body: &[u8], apply: impl FnOnce(&mut Self)) -> Result<(), Stop> {
        let bytes = message(kind, body);
        let fault = match self.fault_after.checked_sub(1) {
            None if matches!(self.fault, Fault::StrayReady) && kind != b'Z' => Fault::None,
            Some(left) => {
                self.fault_after = left;
                Fault::None
            }
            None => mem::replace(&mut self.fault, Fault::None),
        };
        // A fault after the execution can hit an implicit transaction before or after its commit.
        let commits = matches!(fault, Fault::PoolerError(_) | Fault::Fatal(..) | Fault::Close(_));
        if !matches!(fault, Fault::Error(_)) {
            apply(self);
        }
        if commits {
            self.commit_implicit();
        }
        match fault {
            Fault::None => self.write(&bytes).await?,
            Fault::StrayReady => self.write(&[bytes, message(b'Z', &[self.status])].concat()).await?,
            Fault::Error(fields) | Fault::PoolerError(fields) => {
                self.write(&error("ERROR", fields.sqlstate, fields.untranslated)).await?;
                if kind != b'Z' {
                    return Err(Stop::Failed);
                }
                self.write(&bytes).await?;
            }
            Fault::ErrorAndClose(fields) => {
                self.write(&error("ERROR", fields.sqlstate, fields.untranslated)).await?;
                return Err(Stop::Ended);
            }
            Fault::Garbage => self.write(&[b'C', 0, 0, 0, 1]).await?,
            Fault::Fatal(fields, ready) => {
                let mut last = error("FATAL", fields.sqlstate, fields.untranslated);
                if ready {
                    last.extend(message(b'Z', b"I"));
                }
                self.write(&last).await?;
                return Err(Stop::Ended);
            }
            Fault::Close(length) => {
                self.write(&bytes[..length.min(bytes.len())]).await?;
                return Err(Stop::Ended);
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(self.piece.max(1)) {
            self.stream.write_all(piece).await?;
            yield_now().await;
        }
        Ok(())
    }
}

/// Returns the text before the first zero byte.
fn text(body: &[u8]) -> &str {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    std::str::from_utf8(&body[..end]).unwrap_or_default()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("the message is short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn error(severity: &str, sqlstate: &str, untranslated: bool) -> Vec<u8> {
    let untranslated = if untranslated { format!("V{severity}\0") } else { String::new() };
    message(b'E', format!("S{severity}\0{untranslated}C{sqlstate}\0Mthe statement failed\0\0").as_bytes())
}
