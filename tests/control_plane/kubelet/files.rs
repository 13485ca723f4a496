//! The file systems of the containers: volumes, and a read-only overlay of this machine's root directory in place of
//! an image.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, KeyToPath, Pod, Volume};
use serde_json::Value;

use crate::{
    api::{Api, ApiError},
    network::DNS,
};

/// Name of the microservice's program in its image.
pub(super) const MICROSERVICE: &str = "/microservice";

/// The numeric id of the user `postgres` in PostgreSQL's image.
const POSTGRES: u32 = 999;

/// Returns the directory of the layer that all containers share.
fn base(state: &Path) -> PathBuf {
    state.join("base")
}

/// Creates the layer that all containers share: the users of PostgreSQL's image, and the microservice's program.
pub(super) fn create_base(state: &Path) {
    let etc = base(state).join("etc");
    fs::create_dir_all(&etc).expect("the directory is created");
    let users = format!("root:x:0:0::/root:/bin/sh\npostgres:x:{POSTGRES}:{POSTGRES}::/var/lib/postgresql:/bin/bash\n");
    fs::write(etc.join("passwd"), users).expect("the file is written");
    fs::write(etc.join("group"), format!("root:x:0:\npostgres:x:{POSTGRES}:\n")).expect("the file is written");
    fs::write(etc.join("hosts"), "127.0.0.1 localhost\n").expect("the file is written");
    fs::copy(crate::program::path(), base(state).join(MICROSERVICE.trim_start_matches('/')))
        .expect("the program is copied");
}

/// Returns the shell commands that mount a container's root directory on `root`, with the volumes.
pub(super) fn mounts(state: &Path, directory: &Path, pod: &Pod, container: &Container) -> String {
    let namespace = pod.metadata.namespace.as_deref().expect("the Pod has a namespace");
    let layer = directory.join(format!("{}.layer", container.name));
    let root = directory.join(format!("{}.root", container.name));
    for path in [&layer.join("etc"), &root] {
        fs::create_dir_all(path).expect("the directory is created");
    }
    let resolver = format!(
        "nameserver {DNS}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    );
    fs::write(layer.join("etc/resolv.conf"), resolver).expect("the file is written");
    let mut binds = String::new();
    for mount in container.volume_mounts.iter().flatten() {
        let target = resolved(Path::new(&mount.mount_path));
        let target = target.strip_prefix("/").expect("the path is absolute");
        fs::create_dir_all(layer.join(target)).expect("the directory is created");
        let (source, target) = (directory.join("volumes").join(&mount.name), root.join(target));
        binds += &format!("mount --bind '{}' '{}'\n", source.display(), target.display());
    }
    let (layer, base, root) = (layer.display(), base(state).display().to_string(), root.display());
    format!(
        "mount -t overlay overlay -o lowerdir='{layer}:{base}:/' '{root}'
        mount -t proc proc '{root}/proc'
        mount --bind /dev '{root}/dev'
        {binds}"
    )
}

/// Resolves the symbolic links in the part of a path that exists on this machine, such as /var/run.
fn resolved(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(found), ..) => found,
        (Err(_), Some(parent), Some(name)) => resolved(parent).join(name),
        (Err(_), ..) => path.to_owned(),
    }
}

/// Creates a Pod's volumes. Fails while the API server does not respond or an object does not exist.
pub(super) async fn create_volumes(api: &Api, state: &Path, directory: &Path, pod: &Pod) -> Result<(), ApiError> {
    let spec = pod.spec.as_ref().expect("the Pod has a spec");
    let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.map(|group| u32::try_from(group).expect("a group id"));
    let namespace = pod.metadata.namespace.as_deref().expect("the Pod has a namespace");
    for volume in spec.volumes.iter().flatten() {
        let path = directory.join("volumes").join(&volume.name);
        if let Some(claim) = &volume.persistent_volume_claim {
            // Outlives the Pod.
            let data = state.join("claims").join(&claim.claim_name);
            create_directory(&data, group);
            fs::create_dir_all(path.parent().expect("the path has a parent")).expect("the directory is created");
            if fs::symlink_metadata(&path).is_err() {
                std::os::unix::fs::symlink(data, &path).expect("the link is created");
            }
            continue;
        }
        create_directory(&path, group);
        write_files(api, namespace, volume, &path, group).await?;
    }
    Ok(())
}

fn create_directory(path: &Path, group: Option<u32>) {
    fs::create_dir_all(path).expect("the directory is created");
    chown(path, None, group).expect("the group is changed");
    fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).expect("the permissions are set");
}

/// Writes the keys of a ConfigMap or Secret as files.
async fn write_files(
    api: &Api,
    namespace: &str,
    volume: &Volume,
    path: &Path,
    group: Option<u32>,
) -> Result<(), ApiError> {
    let (object, mode, items) = match (&volume.config_map, &volume.secret) {
        (Some(source), None) => {
            let object = api.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{}", source.name)).await?;
            (object, source.default_mode, &source.items)
        }
        (None, Some(source)) => {
            let name = source.secret_name.as_deref().expect("the volume has a Secret");
            let object = api.get(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await?;
            (object, source.default_mode, &source.items)
        }
        _ => {
            assert!(volume.empty_dir.is_some(), "unsupported volume: {volume:?}");
            return Ok(());
        }
    };
    let secret = volume.secret.is_some();
    let mode = u32::try_from(mode.unwrap_or(0o644)).expect("a mode");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let Some(name) = file_name(key, items.as_deref()) else { continue };
        let file = path.join(name);
        fs::write(&file, bytes(value, secret)).expect("the file is written");
        chown(&file, None, group).expect("the group is changed");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("the permissions are set");
    }
    Ok(())
}

/// Returns the name of the file for a key, or `None` if the volume does not contain the key.
fn file_name<'a>(key: &'a str, items: Option<&'a [KeyToPath]>) -> Option<&'a str> {
    match items {
        None | Some([]) => Some(key),
        Some(items) => items.iter().find(|item| item.key == key).map(|item| &*item.path),
    }
}

fn bytes(value: &Value, encoded: bool) -> Vec<u8> {
    use base64::Engine as _;
    let text = value.as_str().expect("the value is text");
    match encoded {
        true => base64::engine::general_purpose::STANDARD.decode(text).expect("the value is base64"),
        false => text.as_bytes().to_vec(),
    }
}
