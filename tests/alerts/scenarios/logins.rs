//! Passwords and authentication methods.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use podpool::{Pool, testkit::Cluster};

use super::sessions;
use crate::{
    raw::Raw,
    scene::{Scene, config},
};

async fn cluster() -> Cluster {
    Cluster::start(3).await.expect("the cluster starts")
}

/// Returns the URL without a password, with this additional parameter.
fn without_password(cluster: &Cluster, parameter: &str) -> String {
    let url = cluster.srv_url();
    let (_, host) = url.rsplit_once('@').expect("the URL has a user");
    format!("postgres://{}@{host}&{parameter}", cluster.user())
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("the file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the permissions are set");
}

pub(crate) async fn wrong_password(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let url = cluster.srv_url().replacen(":p", ":x", 1);
    let _pool = scene.cold(&cluster, Pool::builder(config(&url)));
    scene.finish().await
}

/// The pool's Secret keeps the old password. A session ends later, and cannot be replaced.
pub(crate) async fn password_changed_on_servers(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.set_password("another password").await.expect("the password changes");
    sessions::end(&cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}

/// The servers request the password in clear text on connections without TLS.
pub(crate) async fn authentication_method_refused(mut scene: Scene) -> Raw {
    let cluster = Cluster::builder().hba("host all all 127.0.0.0/8 password").start();
    let cluster = cluster.await.expect("the cluster starts");
    let _pool = scene.cold(&cluster, Pool::builder(config(&cluster.srv_url())));
    scene.finish().await
}

/// The password changes on the servers and then in the file. Connections live for half a minute.
pub(crate) async fn password_rotated(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let directory = tempfile::tempdir().expect("the directory is created");
    let file = directory.path().join("password");
    write(&file, &cluster.password(), 0o600);
    let url = without_password(&cluster, &format!("password_file={}&max_lifetime=30s", file.display()));
    let pool = scene.idle(&cluster, Pool::builder(config(&url))).await;
    scene.load(&pool, podpool::Target::Any);
    scene.before(&pool).await;
    cluster.set_password("another password").await.expect("the password changes");
    write(&file, "another password", 0o600);
    scene.finish().await
}

/// Other users can read the passfile. The servers accept logins without a password.
pub(crate) async fn passfile_ignored(mut scene: Scene) -> Raw {
    let cluster = Cluster::builder().hba("host all all 127.0.0.0/8 trust").start().await.expect("the cluster starts");
    let directory = tempfile::tempdir().expect("the directory is created");
    let file = directory.path().join("pgpass");
    write(&file, "*:*:*:*:secret\n", 0o644);
    let url = without_password(&cluster, &format!("passfile={}", file.display()));
    let _pool = scene.cold(&cluster, Pool::builder(config(&url)));
    scene.finish().await
}

/// A session ends after the removal of the file, and cannot be replaced.
pub(crate) async fn password_file_removed(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let directory = tempfile::tempdir().expect("the directory is created");
    let file = directory.path().join("password");
    write(&file, &cluster.password(), 0o600);
    let url = without_password(&cluster, &format!("password_file={}", file.display()));
    let pool = scene.idle(&cluster, Pool::builder(config(&url))).await;
    scene.load(&pool, podpool::Target::Any);
    scene.before(&pool).await;
    fs::remove_file(&file).expect("the file is removed");
    sessions::end(&cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}
