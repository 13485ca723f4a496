//! The evaluation of queries.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Session, execute::operand};
use crate::postgres::{
    error::Report,
    history::Read,
    lsn::walfile_name,
    sql::{Expression, Query, Value},
};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    /// Returns the rows of a query.
    pub(super) async fn evaluate(
        &self,
        query: &Query,
        parameters: &[Value],
        comment: Option<&str>,
    ) -> Result<Vec<Vec<Value>>, Report> {
        if query.reads_table() {
            self.record_read(comment);
        }
        let filter = |filter: &Option<_>| filter.as_ref().map(|it| operand(it, parameters)).transpose();
        Ok(match query {
            Query::Count(only) => {
                let count = self.ids(filter(only)?.as_ref()).len();
                vec![vec![Value::Int8(i64::try_from(count).unwrap_or(i64::MAX))]]
            }
            Query::Ids(only, sorted) => {
                let mut ids = self.ids(filter(only)?.as_ref());
                if *sorted {
                    ids.sort_unstable();
                }
                ids.into_iter().map(|id| vec![Value::Int8(id)]).collect()
            }
            Query::Maximum => {
                let own = self.transaction.inserts.iter().copied().max();
                let highest = self.server.lock().highest().max(own);
                vec![vec![highest.map_or(Value::Null, Value::Int8)]]
            }
            Query::Prepared => {
                let from_sql = self.prepared.iter().filter(|(_, prepared)| prepared.from_sql);
                from_sql.map(|(name, _)| vec![Value::Text(quote_ident(name))]).collect()
            }
            Query::Row(columns) => {
                let mut row = Vec::new();
                for column in columns {
                    row.push(self.expression(&column.expression, parameters).await?);
                }
                vec![row]
            }
            Query::Show(name) => vec![vec![Value::Text(self.setting(name)?)]],
        })
    }

    /// Returns the ids that the transaction sees: its own inserts, and those of commits.
    fn ids(&self, only: Option<&Value>) -> Vec<i64> {
        let state = self.server.lock();
        let ids = state.visible().chain(self.transaction.inserts.iter().copied());
        match only {
            None => ids.collect(),
            Some(Value::Int8(only)) => ids.filter(|id| id == only).collect(),
            Some(_) => Vec::new(),
        }
    }

    fn record_read(&self, comment: Option<&str>) {
        let state = self.server.lock();
        let position = state.position();
        self.server.cluster.history.read(Read {
            server: self.server.name().to_owned(),
            session: self.registration.handle().pid,
            at: Instant::now(),
            standby: state.in_recovery,
            timeline: state.log.timeline_at(position),
            position,
            comment: comment.map(str::to_owned),
        });
    }

    fn setting(&self, name: &str) -> Result<String, Report> {
        let unknown = || Report::error("42704", format!("unrecognized configuration parameter \"{name}\""));
        match name {
            "transaction_read_only" => Ok(if self.transaction.is_read_only() { "on" } else { "off" }.to_owned()),
            name => self.parameters.value(self.server, &name.to_lowercase()).ok_or_else(unknown),
        }
    }

    async fn expression(&self, expression: &Expression, parameters: &[Value]) -> Result<Value, Report> {
        match expression {
            Expression::Sleep(duration) => {
                let Value::Float8(seconds) = operand(duration, parameters)? else {
                    return Ok(Value::Null);
                };
                let duration = Duration::try_from_secs_f64(seconds.max(0.0));
                self.work(duration.unwrap_or(Duration::MAX)).await.map(|()| Value::Void)
            }
            Expression::Operand(value, _) => operand(value, parameters),
            Expression::Setting(name) => self.setting(name).map(Value::Text),
            Expression::CurrentLsn if self.server.lock().in_recovery => {
                Err(Report::error("55000", "recovery is in progress")
                    .with_detail("WAL control functions cannot be executed during recovery."))
            }
            other => Ok(self.fact(other)),
        }
    }

    /// Returns the value of an expression that depends on the server's state only.
    fn fact(&self, expression: &Expression) -> Value {
        let wall_clock = self.server.wall_clock();
        let handle = self.registration.handle();
        let state = self.server.lock();
        let standby = state.in_recovery;
        let only = |condition: bool, value: Value| if condition { value } else { Value::Null };
        let number = |timeline| i32::try_from(timeline).map_or(Value::Null, Value::Int4);
        let receiver = state.receiver.as_ref();
        // Ordinary roles do not see the columns of the view.
        let shown = receiver.filter(|_| state.settings.read_all_stats);
        let (minimum_timeline, minimum_position) = state.minimum_recovery;
        match expression {
            Expression::AdvisoryLock | Expression::AdvisoryUnlockAll => Value::Void,
            Expression::BackendPid => Value::Int4(handle.pid),
            Expression::ControlPosition => only(standby, Value::Lsn(state.checkpoint.position.max(minimum_position))),
            Expression::ControlTimeline => only(standby, number(state.checkpoint.timeline.max(minimum_timeline))),
            Expression::CurrentUser => Value::Text(handle.user.clone()),
            Expression::InRecovery => Value::Bool(standby),
            Expression::CurrentLsn | Expression::Position => Value::Lsn(state.position()),
            Expression::ReceiveLsn => only(standby, Value::Lsn(state.log.end())),
            Expression::ReceivedTimeline => only(shown.is_some(), number(state.log.timeline())),
            Expression::Receiving => Value::Bool(receiver.is_some()),
            Expression::ReplayLsn => only(standby, Value::Lsn(state.replayed)),
            Expression::ReplayedAgo => state.replayed_stamp.map_or(Value::Null, |stamp| {
                let micros = wall_clock - stamp;
                let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
                Value::Numeric(format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000))
            }),
            Expression::SenderAddress => {
                shown.map_or(Value::Null, |it| Value::Text(format!("{} {}", it.host, it.port)))
            }
            Expression::Slots => {
                let (all, reserved) = (state.settings.max_connections, state.settings.reserved_connections);
                let slots = all.saturating_sub(reserved).min(self.role_limit(&state.settings).unwrap_or(usize::MAX));
                i32::try_from(slots).map_or(Value::Null, Value::Int4)
            }
            Expression::Started => Value::Int8(state.started),
            Expression::SystemIdentifier => Value::Int8(i64::from_ne_bytes(self.server.cluster.system.to_ne_bytes())),
            Expression::TimelineDigits => {
                let timeline = state.log.timeline();
                only(!standby, Value::Text(walfile_name(timeline, state.position())[..8].to_owned()))
            }
            Expression::Operand(..) | Expression::Setting(_) | Expression::Sleep(_) => Value::Null,
        }
    }

    fn role_limit(&self, settings: &crate::postgres::settings::Settings) -> Option<usize> {
        match &settings.authentication {
            crate::postgres::settings::Authentication::Scram(users) => {
                users.get(&self.registration.handle().user)?.connection_limit
            }
            crate::postgres::settings::Authentication::Trust => None,
        }
    }
}

/// Quotes a name if it is no plain identifier, as `quote_ident` does.
fn quote_ident(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
