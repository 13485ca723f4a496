//! The command `resolve`: prints the addresses of a name.

use std::process::ExitCode;

use podpool::discovery::{Dns, DnsOptions, Resolve as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{args::Fault, diagnose::Severity, lookup, style};

pub(crate) async fn run(options: DnsOptions, json: bool) -> Result<ExitCode, Fault> {
    let dns = Dns::new(options)?;
    let resolution = match dns.resolve().await {
        Ok(resolution) => resolution,
        Err(error) if json => {
            println!("{:#}", json!({ "kind": error.kind().as_str(), "error": lookup::text(&error) }));
            return Ok(Severity::Error.exit_code());
        }
        Err(error) => {
            eprintln!("podpool: {}", lookup::text(&error));
            return Ok(Severity::Error.exit_code());
        }
    };
    let ttl = resolution.valid_until.saturating_duration_since(Instant::now());
    let name = resolution.name.as_deref().unwrap_or_default();
    let cluster_ip = dns.stats().cluster_ip;
    if json {
        let pod = |pod: &podpool::Endpoint| -> Value {
            json!({ "address": pod.address().to_string(), "pod": pod.name(), "host": pod.host() })
        };
        let pods: Vec<_> = resolution.endpoints.iter().map(pod).collect();
        let server = resolution.server.map(|server| server.to_string());
        let text = json!({
            "name": name, "server": server, "ttl_seconds": ttl.as_secs_f64().round(), "pods": pods,
            "cluster_ip": cluster_ip.map(|ip| ip.to_string()),
        });
        println!("{text:#}");
    } else {
        let server = resolution.server.map_or_else(|| "no name server".to_owned(), |server| server.to_string());
        println!("{name} from {server}, valid for {} s", ttl.as_secs_f64().round());
        let rows = resolution.endpoints.iter().map(|pod| {
            let name = pod.name().unwrap_or("-");
            [name.to_owned(), pod.address().to_string(), pod.host().unwrap_or("-").to_owned()]
        });
        print!("{}", style::table(["POD", "ADDRESS", "HOST"], &rows.collect::<Vec<_>>()));
        if let Some(ip) = cluster_ip {
            println!("{ip} is the ClusterIP of the Service: the Service is not headless");
        }
    }
    Ok(if cluster_ip.is_some() { Severity::Warning } else { Severity::Ok }.exit_code())
}
