//! What makes one server follow another.

use std::{fs, sync::Arc};

use tokio::time::sleep;
use tracing::debug;

use super::{Error, command, processes::POLL, server::Server, site::Site};
use crate::time::{Duration, Instant};

/// Makes a running standby a primary, and returns when it takes writes.
pub(super) async fn promote(server: &Server) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("promote {}", server.name()), source);
    let client = server.connect("postgres").await?;
    let promoted: bool = client.query_one("SELECT pg_promote(true, 60)", &[]).await.map_err(failed)?.get(0);
    if !promoted {
        return Err(server.timeout(format!("the promotion of {}", server.name()), Duration::from_secs(60)));
    }
    // Writes the new timeline to the control file, which is where pg_rewind looks for it.
    client.batch_execute("CHECKPOINT").await.map_err(failed)
}

/// Fresh data for a server that is down: a copy of the primary's.
pub(super) async fn copy(site: &Site, server: &Server, primary: &Server) -> Result<(), Error> {
    let data = server.data();
    if data.exists() {
        fs::remove_dir_all(&data).map_err(|source| Error::io(format!("remove {}", data.display()), source))?;
    }
    let mut copy = site.program("pg_basebackup");
    copy.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-manifest", "--no-password"]);
    copy.arg("--pgdata").arg(data).arg("--dbname").arg(site.conninfo(primary.address(), "pg_basebackup"));
    command::output(&mut copy).await?;
    Ok(())
}

/// Makes the data of a server that is down, whatever it holds, follow the primary's.
pub(super) async fn rewind_or_copy(site: &Site, server: &Server, primary: &Server) -> Result<(), Error> {
    if site.programs.has("pg_rewind") && server.data().exists() {
        let mut rewind = site.program("pg_rewind");
        rewind.arg("--no-sync").arg("--target-pgdata").arg(server.data());
        rewind.arg("--source-server").arg(site.conninfo(primary.address(), "pg_rewind"));
        match command::output(&mut rewind).await {
            Ok(_) => return Ok(()),
            Err(error) => debug!(%error, pod = server.name(), "pg_rewind cannot help; copying the primary"),
        }
    }
    copy(site, server, primary).await
}

/// Waits until a standby receives what the primary writes.
pub(super) async fn wait_streaming(primary: &Server, standby: &Server, deadline: Duration) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("ask {} who follows it", primary.name()), source);
    let client = primary.connect("postgres").await?;
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
    let until = Instant::now() + deadline;
    loop {
        let count: i64 = client.query_one(streams, &[&standby.name()]).await.map_err(failed)?.get(0);
        if count > 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(standby.timeout(format!("streaming from {} to {}", primary.name(), standby.name()), deadline));
        }
        sleep(POLL).await;
    }
}

/// Waits until each of these standbys has replayed all that the primary has written so far.
pub(super) async fn wait_replayed(primary: &Server, standbys: &[Arc<Server>], deadline: Duration) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("compare {} with its standbys", primary.name()), source);
    let client = primary.connect("postgres").await?;
    // A commit of our own flushes everything before it; the insert position may lie behind a page header that no
    // standby replays before the next record comes.
    client.batch_execute("SELECT pg_logical_emit_message(true, 'podpool', '')").await.map_err(failed)?;
    let written = "SELECT pg_current_wal_flush_lsn()::text";
    let position: String = client.query_one(written, &[]).await.map_err(failed)?.get(0);
    let replayed = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
    let until = Instant::now() + deadline;
    for standby in standbys {
        let client = standby.connect("postgres").await?;
        while !client.query_one(replayed, &[&position]).await.map_err(failed)?.get::<_, bool>(0) {
            if Instant::now() > until {
                return Err(standby.timeout(format!("the replay of {position} on {}", standby.name()), deadline));
            }
            sleep(POLL).await;
        }
    }
    Ok(())
}
