//! Patroni's configuration.

use std::{net::SocketAddr, path::Path};

use crate::testkit::cluster_config::{ClusterConfig, SUPERUSER};

/// The name of Patroni's configuration file in a Pod's directory.
pub(super) const FILE: &str = "patroni.yml";

/// The name of the cluster in etcd.
pub(super) const SCOPE: &str = "podpool";

/// The user of the standbys. Its password is the superuser's.
const REPLICATOR: &str = "replicator";

/// Returns the configuration of one member, in YAML. `ttl` is Patroni's minimum.
pub(super) fn patroni(
    config: &ClusterConfig,
    name: &str,
    directory: &Path,
    [address, api, etcd]: [SocketAddr; 3],
) -> String {
    let (directory, secret) = (directory.display(), &config.secret);
    let postgres = config.programs.path("postgres");
    let programs = postgres.parent().unwrap_or(Path::new("/")).display();
    let hba = format!("{}host replication {REPLICATOR} 127.0.0.0/8 scram-sha-256\n", config.pg_hba());
    let hba: String = hba.lines().map(|line| format!("    - {line}\n")).collect();
    format!(
        "scope: {SCOPE}
name: {name}
restapi:
  listen: {api}
  connect_address: {api}
etcd3:
  host: {etcd}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters:
        max_connections: 100
        wal_keep_size: 256MB
        wal_log_hints: 'on'
  initdb:
    - no-sync
    - locale: C
    - encoding: UTF8
    - data-checksums
    - wal-segsize: '1'
    - auth-host: scram-sha-256
postgresql:
  listen: {address}
  connect_address: {address}
  data_dir: \"{directory}/data\"
  bin_dir: \"{programs}\"
  pgpass: \"{directory}/pgpass\"
  basebackup:
    - checkpoint: fast
  pg_hba:
{hba}  authentication:
    superuser:
      username: {SUPERUSER}
      password: {secret}
    replication:
      username: {REPLICATOR}
      password: {secret}
  parameters:
    unix_socket_directories: ''
    password_encryption: scram-sha-256
    shared_buffers: 16MB
    fsync: 'off'
    dynamic_shared_memory_type: mmap
    wal_retrieve_retry_interval: 100ms
    lc_messages: C
    log_line_prefix: '%m [%p] %q%u@%d '
"
    )
}
