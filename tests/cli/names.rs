//! Broken names and addresses: no such name, a Service that is not headless, a closed port.

use podpool::testkit::fault_dns::{self, FaultDns};

use crate::{assert_explains, assert_good, cluster, podpool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_names_and_ports() {
    let cluster = cluster(3).start().await.expect("the cluster starts");
    let url = cluster.url();
    assert_good(&url).await;
    assert_good(&cluster.srv_url()).await;

    let no_such = url.replace(cluster.service(), "postgres-svc.k8s-training.svc.cluster.local");
    let remedy = "kubectl get service postgres-svc -n k8s-training";
    assert_explains(&no_such, 1, "dns", "does not exist (NXDOMAIN)", remedy).await;

    let closed = url.replace(&format!(":{}/", cluster.port()), ":9/");
    assert_ne!(closed, url);
    let run = assert_explains(&closed, 1, "tcp", "no server listens on the port", "the port in the URL is 9").await;
    for pod in cluster.pods() {
        assert!(run.stdout.contains(&format!("{}:9", pod.address().ip())), "{}", run.stdout);
    }

    // A name server that does not respond is another fault than a name that does not exist.
    cluster.dns().pause();
    assert_explains(&format!("{url}&dns_timeout=300ms"), 1, "dns", "no DNS response", "NetworkPolicies must allow")
        .await;
    cluster.dns().resume();

    let unset = podpool("", &["check"]).await;
    assert_eq!((unset.status, unset.stdout.as_str()), (2, ""), "{}", unset.stderr);
    assert!(unset.stderr.contains("DATABASE_URL"), "{}", unset.stderr);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// The PTR record of a ClusterIP is the name of the Service (Kubernetes DNS specification, 2.3.3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_a_service_that_is_not_headless() {
    let cluster = cluster(1).start().await.expect("the cluster starts");
    let pod = cluster.pod(0).address();
    let (ip, owner) = (pod.ip().to_string(), format!("{}.", cluster.service()));
    let dns = FaultDns::start().await.expect("the name server starts");
    let url = cluster.url().replace(&cluster.dns().address().to_string(), &dns.address().to_string());

    // The record of a Pod behind a headless Service, which has one Pod.
    let record = |name: &str| vec![fault_dns::address(&owner, 5, &ip), fault_dns::pointer(&ip, name)];
    dns.set_records(".", record(&format!("postgresql-sfs-0.{owner}")));
    assert_good(&url).await;

    dns.set_records(".", record(&owner));
    assert_explains(&url, 3, "service", &format!("{ip} is the ClusterIP"), "clusterIP: None").await;

    // The SRV record contains the name of the Service itself (2.3.2).
    let srv = format!("_pg._tcp.{owner}");
    let records = vec![fault_dns::address(&owner, 5, &ip), fault_dns::service(&srv, pod.port(), &owner)];
    dns.set_records(".", records);
    let url = format!("{url}&discovery=srv&port_name=pg");
    assert_explains(&url, 3, "service", &format!("{ip} is the ClusterIP"), "clusterIP: None").await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
