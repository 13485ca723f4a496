//! Certificates of servers and files of the client.

use std::{fs, path::PathBuf};

use podpool::{Pool, testkit::Cluster};
use tempfile::TempDir;

use super::sessions;
use crate::{
    authority::Authority,
    raw::Raw,
    scene::{Scene, config},
};

/// The name in the servers' certificates, which is the testkit's default name of the Service.
const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

/// An authority, its file, and a cluster whose certificates it has issued.
struct Site {
    ours: Authority,
    cluster: Cluster,
    files: TempDir,
}

impl Site {
    /// Starts a cluster with a certificate from `issuer`, or from our own authority.
    async fn start(issuer: Option<&Authority>, hba: &str) -> Self {
        let ours = Authority::new("ours");
        let identity = issuer.unwrap_or(&ours).issue(&[SERVICE]);
        let cluster = Cluster::builder().certificate(identity.certificate, identity.key).hba(hba);
        let cluster = cluster.start().await.expect("the cluster starts");
        let files = tempfile::tempdir().expect("the directory is created");
        let site = Self { ours, cluster, files };
        fs::write(site.root(), site.ours.certificate()).expect("the certificate is written");
        site
    }

    fn root(&self) -> PathBuf {
        self.files.path().join("ca.crt")
    }

    fn parameters(&self) -> String {
        format!("&sslmode=verify-full&sslrootcert={}", self.root().display())
    }

    /// Gives a Pod a new certificate from this authority.
    async fn certify(&self, ordinal: usize, issuer: &Authority) {
        let identity = issuer.issue(&[SERVICE]);
        let changed = self.cluster.set_certificate(ordinal, identity.certificate, identity.key);
        changed.await.expect("the certificate is replaced");
    }
}

/// Lines of `pg_hba.conf` that require TLS and this method.
const SCRAM: &str = "hostssl all all 127.0.0.0/8 scram-sha-256";

pub(crate) async fn certificate_renewed(mut scene: Scene) -> Raw {
    let site = Site::start(None, SCRAM).await;
    let _pool = scene.healthy(&site.cluster, &format!("{}&max_lifetime=30s", site.parameters())).await;
    for ordinal in 0..3 {
        site.certify(ordinal, &site.ours).await;
    }
    scene.finish().await
}

/// The servers' password is stored as an MD5 hash, so that logins use MD5 instead of SCRAM.
pub(crate) async fn protection_weakened(mut scene: Scene) -> Raw {
    let site = Site::start(None, "hostssl all all 127.0.0.0/8 md5").await;
    let _pool = scene.healthy(&site.cluster, &format!("{}&max_lifetime=30s", site.parameters())).await;
    let superuser = site.cluster.client(0).await.expect("the superuser connects");
    let (user, password) = (site.cluster.user(), site.cluster.password());
    let change = format!("SET password_encryption = 'md5'; ALTER ROLE \"{user}\" PASSWORD '{password}'");
    superuser.batch_execute(&change).await.expect("the password is stored as an MD5 hash");
    scene.finish().await
}

/// The servers' certificates are from an unknown authority when the program starts.
pub(crate) async fn certificate_invalid(mut scene: Scene) -> Raw {
    let site = Site::start(Some(&Authority::new("other")), SCRAM).await;
    let url = format!("{}{}", site.cluster.srv_url(), site.parameters());
    let _pool = scene.cold(&site.cluster, Pool::builder(config(&url)));
    scene.finish().await
}

/// A session ends after its Pod got a certificate from an unknown authority, and cannot be replaced.
pub(crate) async fn certificate_invalid_on_one_pod(mut scene: Scene) -> Raw {
    let site = Site::start(None, SCRAM).await;
    let _pool = scene.healthy(&site.cluster, &site.parameters()).await;
    site.certify(2, &Authority::new("other")).await;
    sessions::end(&site.cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}

pub(crate) async fn certificate_files_renewed(mut scene: Scene) -> Raw {
    let site = Site::start(None, SCRAM).await;
    let _pool = scene.healthy(&site.cluster, &format!("{}&max_lifetime=30s", site.parameters())).await;
    let both = format!("{}{}", site.ours.certificate(), Authority::new("next").certificate());
    fs::write(site.root(), both).expect("the certificates are written");
    scene.finish().await
}

pub(crate) async fn certificate_files_invalid(mut scene: Scene) -> Raw {
    let site = Site::start(None, SCRAM).await;
    let _pool = scene.healthy(&site.cluster, &format!("{}&max_lifetime=30s", site.parameters())).await;
    fs::write(site.root(), "-----BEGIN CERTIFICATE-----\nhalf").expect("half a certificate is written");
    scene.finish().await
}
