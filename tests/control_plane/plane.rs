//! The processes of the control plane.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use serde_json::json;
use tokio::process::{Child, Command};

use crate::{
    api::Api,
    authority::Authority,
    isolated::Paths,
    manifests::apply_object,
    network::{DNS, NODE},
};

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";
const COREDNS: &str = "coredns";

/// The programs that `scripts/control-plane` builds.
pub(crate) const PROGRAMS: [&str; 4] = [ETCD, API_SERVER, CONTROLLERS, COREDNS];

/// Time limit for the start of each program. The API server takes about three seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The controllers that the manifests need.
const ENABLED: &str = "deployment-controller,endpointslice-controller,replicaset-controller,statefulset-controller";

/// A running control plane. Dropping it kills the processes.
pub(crate) struct Plane {
    paths: Paths,
    pub(crate) api: Api,
    processes: Mutex<Vec<(&'static str, Child)>>,
}

impl Plane {
    /// Starts all programs, and waits until the API server and CoreDNS are ready.
    pub(crate) async fn start(paths: Paths) -> Self {
        let authority = Authority::new("control plane");
        let server = authority.issue(&[&NODE.to_string(), "127.0.0.1"]);
        // Signs tokens of service accounts, which no Pod uses. The API server does not start without it.
        let accounts = authority.issue(&["service-accounts"]);
        let admin = "admin-token";
        for (name, text) in [
            ("ca.crt", &*authority.certificate),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("accounts.key", &accounts.key),
            ("accounts.crt", &accounts.certificate),
            (
                "tokens.csv",
                "admin-token,admin,1,system:masters\ncontrollers-token,controllers,2,system:masters\n\
                 coredns-token,system:coredns,3\n",
            ),
            ("controllers.conf", &kubeconfig("controllers-token", &paths)),
            ("coredns.conf", &kubeconfig("coredns-token", &paths)),
            ("Corefile", &corefile(&paths)),
        ] {
            fs::write(paths.state.join(name), text).expect("the file is written");
        }
        let api = Api::new(SocketAddr::from((NODE, 6443)), admin, &authority.certificate);
        let plane = Self { paths, api, processes: Mutex::default() };
        plane.start_program(ETCD);
        plane.start_api_server().await;
        plane.authorize_coredns().await;
        plane.start_program(CONTROLLERS);
        plane.start_coredns().await;
        plane
    }

    pub(crate) async fn start_api_server(&self) {
        self.start_program(API_SERVER);
        self.until_ready(API_SERVER, async || self.api.is_ready().await).await;
    }

    pub(crate) async fn start_coredns(&self) {
        self.start_program(COREDNS);
        let ready = SocketAddr::from((Ipv4Addr::LOCALHOST, 8181));
        self.until_ready(COREDNS, async || crate::kubelet::http_get(ready, "/ready").await.is_ok()).await;
    }

    pub(crate) async fn kill_api_server(&self) {
        self.kill(API_SERVER).await;
    }

    pub(crate) async fn kill_coredns(&self) {
        self.kill(COREDNS).await;
    }

    fn start_program(&self, name: &'static str) {
        let state = self.paths.state.display();
        let arguments = match name {
            ETCD => format!(
                "--data-dir={state}/etcd --unsafe-no-fsync --log-level=warn --listen-client-urls=http://127.0.0.1:2379 \
                 --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 \
                 --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=default=http://127.0.0.1:2380"
            ),
            API_SERVER => format!(
                "--etcd-servers=http://127.0.0.1:2379 --bind-address={NODE} --advertise-address={NODE} \
                 --secure-port=6443 --tls-cert-file={state}/server.crt --tls-private-key-file={state}/server.key \
                 --token-auth-file={state}/tokens.csv --authorization-mode=RBAC --endpoint-reconciler-type=none \
                 --disable-admission-plugins=ServiceAccount --service-cluster-ip-range=10.96.0.0/16 \
                 --service-account-issuer=https://kubernetes.default.svc \
                 --service-account-key-file={state}/accounts.crt \
                 --service-account-signing-key-file={state}/accounts.key"
            ),
            CONTROLLERS => format!(
                "--kubeconfig={state}/controllers.conf --controllers={ENABLED} --leader-elect=false \
                 --bind-address=127.0.0.1"
            ),
            _ => format!("-conf={state}/Corefile"),
        };
        let log = File::options().create(true).append(true).open(self.log(name)).expect("the log file is created");
        let child = Command::new(self.paths.programs.join(name))
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the descriptor is copied"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.processes.lock().unwrap().push((name, child));
    }

    /// Kills a program immediately, so that it cannot end its connections in order.
    async fn kill(&self, name: &str) {
        let child = {
            let mut processes = self.processes.lock().unwrap();
            let found = processes.iter().position(|(running, _)| *running == name).expect("the program runs");
            processes.swap_remove(found).1
        };
        let mut child = child;
        child.kill().await.expect("the program is killed");
    }

    /// Waits until `condition` is true. Panics with the program's log after the time limit.
    async fn until_ready(&self, name: &str, condition: impl AsyncFn() -> bool) {
        let polling = async {
            while !condition().await && !self.has_exited(name) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(LIMIT, polling).await.is_err() || self.has_exited(name) {
            let log = fs::read_to_string(self.log(name)).unwrap_or_default();
            panic!("{name} has exited or is not ready after {LIMIT:?}: {log}");
        }
    }

    fn has_exited(&self, name: &str) -> bool {
        let mut processes = self.processes.lock().unwrap();
        let process = processes.iter_mut().find(|(running, _)| *running == name);
        process.is_none_or(|(_, child)| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.paths.state.join(format!("{name}.log"))
    }

    /// Grants CoreDNS the permissions of kubeadm's manifest.
    async fn authorize_coredns(&self) {
        let version = "rbac.authorization.k8s.io/v1";
        let verbs = ["list", "watch"];
        let rule =
            |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
        let core = rule("", &["endpoints", "services", "pods", "namespaces"]);
        let rules = [core, rule("discovery.k8s.io", &["endpointslices"])];
        let role = json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": { "name": "system:coredns" }, "rules": rules,
        });
        let binding = json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns" }],
        });
        apply_object(&self.api, &role).await;
        apply_object(&self.api, &binding).await;
    }
}

/// Returns a kubeconfig with a token.
fn kubeconfig(token: &str, paths: &Paths) -> String {
    let authority = paths.state.join("ca.crt");
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://{NODE}:6443"), "certificate-authority": authority,
        } }],
        "users": [{ "name": "u", "user": { "token": token } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    })
    .to_string()
}

/// Returns kubeadm's Corefile without the plugins that forward other names to the node's name servers, which do not
/// exist here, and without metrics.
fn corefile(paths: &Paths) -> String {
    let config = paths.state.join("coredns.conf");
    let config = config.display();
    format!(
        ".:53 {{
            bind {DNS}
            errors
            health 127.0.0.1:8080 {{
                lameduck 5s
            }}
            ready 127.0.0.1:8181
            kubernetes cluster.local in-addr.arpa ip6.arpa {{
                kubeconfig {config}
                pods insecure
                fallthrough in-addr.arpa ip6.arpa
                ttl 30
            }}
            cache 30 {{
                disable success cluster.local
                disable denial cluster.local
            }}
            reload
            loadbalance
        }}"
    )
}
