use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use podpool::{Applied, Target, tokio_postgres};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    failure::{Failure, is_duplicate},
};

/// Maximum length of `id` and `run`, in bytes. Well below PostgreSQL's size limit for an index entry.
const LENGTH_MAX: usize = 1_000;

/// Inserts the row and returns the address and the name of the server that executed the statement.
const STATEMENT: &str = "INSERT INTO tb_writes (id, run) VALUES ($1, $2) \
                         RETURNING host(inet_server_addr()), current_setting('cluster_name')";

#[derive(Deserialize)]
pub(crate) struct Write {
    id: String,
    run: String,
}

#[derive(Serialize)]
pub(crate) struct Written {
    server_addr: Option<String>,
    pod: String,
    attempts: u32,
    us: u128,
}

/// Inserts a row on the primary. Retries an attempt only if it is known not to have been applied.
pub(crate) async fn write(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Written>, Failure> {
    let body = body.map_err(|rejection| Failure::request(rejection.status(), rejection.body_text()))?;
    let write = &Write::from_json(&body)?;
    let begun = Instant::now();
    let attempts = &AtomicU32::new(0);
    let work = app.pool.retry_unapplied(Target::Primary, |client| {
        attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            let statement = client.prepare_cached(STATEMENT).await?;
            // `query_one` returns only after the server has sent ReadyForQuery, so the row is committed.
            let row = client.query_one(&statement, &[&write.id, &write.run]).await?;
            Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?))
        }
    });
    // Before the first attempt, no statement can have been sent.
    let applied = || if attempts.load(Ordering::Relaxed) == 0 { Applied::No } else { Applied::Unknown };
    match app.with_timeout(Duration::ZERO, work, applied).await {
        Ok((server_addr, pod)) => {
            let attempts = attempts.load(Ordering::Relaxed);
            Ok(Json(Written { server_addr, pod, attempts, us: begun.elapsed().as_micros() }))
        }
        Err(Failure::Database(error)) if is_duplicate(&error) => Err(Failure::Duplicate(error)),
        Err(failure) => Err(failure),
    }
}

impl Write {
    fn from_json(body: &[u8]) -> Result<Self, Failure> {
        let write: Self =
            serde_json::from_slice(body).map_err(|error| Failure::bad(format!("invalid body: {error}")))?;
        for (field, text) in [("id", &write.id), ("run", &write.run)] {
            if text.len() > LENGTH_MAX || text.contains('\0') {
                return Err(Failure::bad(format!("{field}: expected at most {LENGTH_MAX} bytes without NUL")));
            }
        }
        if write.id.is_empty() {
            return Err(Failure::bad("id: expected a non-empty string"));
        }
        Ok(write)
    }
}
