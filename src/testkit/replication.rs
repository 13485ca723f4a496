//! Controls replication between servers: promotes standbys, copies and rewinds their data, and waits for replication.

use std::{fs, sync::Arc};

use tokio::time::sleep;
use tracing::debug;

use super::{
    Error, base_backup, cluster_config::ClusterConfig, command, processes::POLL_INTERVAL, programs::BASE_BACKUP,
    server::Server,
};
use crate::time::{Duration, Instant};

/// Promotes a running standby and returns when it accepts writes.
pub(super) async fn promote(server: &Server) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("promote {}", server.name()), source);
    let client = server.connect("postgres").await?;
    let promoted: bool = client.query_one("SELECT pg_promote(true, 60)", &[]).await.map_err(failed)?.get(0);
    if !promoted {
        return Err(server.timeout(format!("the promotion of {}", server.name()), Duration::from_secs(60)));
    }
    // A checkpoint writes the new timeline to the control file, where pg_rewind reads it.
    client.batch_execute("CHECKPOINT").await.map_err(failed)
}

/// Replaces the data of a server, which must be down, with a base backup of the primary.
pub(super) async fn copy(config: &ClusterConfig, server: &Server, primary: &Server) -> Result<(), Error> {
    let data = server.data();
    if data.exists() {
        fs::remove_dir_all(&data).map_err(|source| Error::io(format!("remove {}", data.display()), source))?;
    }
    if !config.programs.has(BASE_BACKUP) {
        return base_backup::copy(primary, data, config.account, config.programs.major()).await;
    }
    let mut copy = config.program(BASE_BACKUP);
    copy.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-manifest", "--no-password"]);
    copy.arg("--pgdata").arg(data).arg("--dbname").arg(config.conninfo(primary.address(), BASE_BACKUP));
    command::output(&mut copy).await?;
    Ok(())
}

/// Prepares the data of a server, which must be down, for following the primary: with `pg_rewind` if possible,
/// otherwise with a base backup.
pub(super) async fn rewind_or_copy(config: &ClusterConfig, server: &Server, primary: &Server) -> Result<(), Error> {
    if config.programs.has("pg_rewind") && server.data().exists() {
        let mut rewind = config.program("pg_rewind");
        rewind.arg("--no-sync").arg("--target-pgdata").arg(server.data());
        rewind.arg("--source-server").arg(config.conninfo(primary.address(), "pg_rewind"));
        match command::output(&mut rewind).await {
            Ok(_) => return Ok(()),
            Err(error) => debug!(%error, pod = server.name(), "pg_rewind failed; copying the primary instead"),
        }
    }
    copy(config, server, primary).await
}

/// Waits until a standby streams WAL from the primary.
pub(super) async fn wait_streaming(primary: &Server, standby: &Server, deadline: Duration) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("query the standbys of {}", primary.name()), source);
    let client = primary.connect("postgres").await?;
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
    let until = Instant::now() + deadline;
    loop {
        let count: i64 = client.query_one(streams, &[&standby.name()]).await.map_err(failed)?.get(0);
        if count > 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(standby.timeout(format!("{} to stream from {}", standby.name(), primary.name()), deadline));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits until each standby has replayed all WAL that the primary has written so far.
pub(super) async fn wait_replayed(primary: &Server, standbys: &[Arc<Server>], deadline: Duration) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("compare {} with its standbys", primary.name()), source);
    let client = primary.connect("postgres").await?;
    // Emit a transactional message. Its commit flushes all earlier WAL. Do not wait until the standbys reach the insert
    // position instead: it can be past a page header, which a standby replays only with the next WAL record.
    client.batch_execute("SELECT pg_logical_emit_message(true, 'podpool', '')").await.map_err(failed)?;
    let flushed = "SELECT pg_current_wal_flush_lsn()::text";
    let position: String = client.query_one(flushed, &[]).await.map_err(failed)?.get(0);
    let replayed = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
    let until = Instant::now() + deadline;
    for standby in standbys {
        let client = standby.connect("postgres").await?;
        while !client.query_one(replayed, &[&position]).await.map_err(failed)?.get::<_, bool>(0) {
            if Instant::now() > until {
                return Err(standby.timeout(format!("{} to replay WAL up to {position}", standby.name()), deadline));
            }
            sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}
