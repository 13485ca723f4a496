//! The commands other than `check`, and their exit statuses.

use podpool::testkit::Shutdown;
use serde_json::Value;

use crate::{cluster, podpool};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolve_watch_and_bench_show_every_pod() {
    let cluster = cluster(3).start().await.expect("the cluster starts");
    let server = cluster.dns().address().to_string();
    let url = cluster.srv_url();

    let run = podpool(&url, &["resolve", cluster.service(), "--server", &server, "--srv", "postgresql-port"]).await;
    assert_eq!(run.status, 0, "{}", run.stderr);
    let resolved = podpool(&url, &["resolve", cluster.service(), "--server", &server, "--json"]).await;
    assert_eq!(json(&resolved.stdout)["pods"].as_array().map(Vec::len), Some(3), "{}", resolved.stdout);
    let watched = podpool(&url, &["watch", "--count", "2", "--interval", "0.3"]).await;
    assert_eq!(watched.status, 0, "{}", watched.stderr);
    let measured = podpool(&url, &["bench", "--seconds", "0.5", "--tasks", "4"]).await;
    assert_eq!(measured.status, 0, "{}", measured.stderr);
    for pod in cluster.pods() {
        for output in [&run.stdout, &watched.stdout, &measured.stdout] {
            assert!(output.contains(pod.name()), "{} is not shown: {output}", pod.name());
        }
    }
    println!("{}\n{}\n{}", run.stdout, watched.stdout, measured.stdout);
    assert!(watched.stdout.contains("state_changed"), "{}", watched.stdout);

    let views = podpool(&url, &["watch", "--count", "3", "--interval", "0.3", "--json"]).await;
    let views: Vec<_> = views.stdout.lines().map(json).collect();
    assert_eq!(views.len(), 3);
    let pods = views[2]["pods"].as_array().expect("there are Pods");
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert!(pod["sessions"].as_i64() > Some(0) && pod["usable"] == true, "{pod}");
        assert!(pod["transactions_per_second"].is_number(), "{pod}");
    }
    let share: f64 = pods.iter().filter_map(|pod| pod["session_share"].as_f64()).sum();
    assert!((share - 1.0).abs() < 1e-6, "{pods:?}");

    let measured = json(&podpool(&url, &["bench", "--seconds", "0.5", "--tasks", "4", "--json"]).await.stdout);
    let total: u64 = measured["pods"].as_object().expect("there are Pods").values().filter_map(Value::as_u64).sum();
    assert!(total > 0 && Some(total) == measured["statements"].as_u64(), "{measured}");
    assert_eq!(measured["errors"], serde_json::json!({}));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_statuses_report_failures() {
    let cluster = cluster(1).start().await.expect("the cluster starts");
    let server = cluster.dns().address().to_string();
    let url = cluster.url();
    let failed = podpool(&url, &["bench", "--seconds", "0.2", "--sql", "SELECT 1 / 0"]).await;
    assert_eq!(failed.status, 1);
    assert!(failed.stdout.contains("division by zero"), "{}", failed.stdout);
    let missing = podpool(&url, &["resolve", "no-such-name.svc.cluster.local.", "--server", &server]).await;
    assert_eq!((missing.status, missing.stdout.as_str()), (1, ""), "{}", missing.stderr);
    assert!(missing.stderr.contains("NXDOMAIN"), "{}", missing.stderr);

    cluster.stop(0, Shutdown::Fast).await.expect("the Pod stops");
    let failed = podpool(&format!("{url}&acquire_timeout=300ms"), &["bench", "--seconds", "0.2"]).await;
    assert_eq!(failed.status, 1, "{}", failed.stdout);
    assert!(failed.stderr.contains("podpool check"), "{}", failed.stderr);
    let watched = podpool(&url, &["watch", "--count", "1", "--interval", "0.3"]).await;
    assert_eq!(watched.status, 1, "{}", watched.stdout);

    for (arguments, status) in
        [(&["--help"][..], 0), (&["--version"], 0), (&["chekc"], 2), (&["check", "--tasks", "1"], 2)]
    {
        let run = podpool(&url, arguments).await;
        assert_eq!(run.status, status, "{arguments:?}: {}{}", run.stdout, run.stderr);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
