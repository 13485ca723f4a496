//! Prints the addresses of a Service name in the format of nslookup. With `--srv`, prints the names and ports of the
//! Pods too.
//!
//! ```text
//! cargo run --example resolve -- postgresql-svc.k8s-training.svc.cluster.local
//! cargo run --example resolve -- postgresql-svc --srv postgresql-port --server 127.0.0.1:5353
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::{env, net::SocketAddr, process::ExitCode};

use podpool::discovery::{Dns, DnsOptions, Resolve as _};

const USAGE: &str = "usage: resolve NAME [--server IP:PORT] [--srv PORT_NAME] [--port PORT]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("resolve: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let dns = Dns::new(options(args)?)?;
    let resolution = dns.resolve().await?;
    if let Some(server) = resolution.server {
        println!("Server:\t\t{}", server.ip());
        println!("Address:\t{server}\n");
    }
    let name = resolution.name.as_deref().unwrap_or_default().trim_end_matches('.');
    for pod in &resolution.endpoints {
        let Some(address) = pod.address().tcp() else { continue };
        println!("Name:\t{name}\nAddress: {}", address.ip());
        if let Some(pod_name) = pod.name() {
            println!("Pod:\t{pod_name}, port {}", address.port());
        }
    }
    Ok(())
}

fn options(mut args: impl Iterator<Item = String>) -> Result<DnsOptions, Box<dyn std::error::Error>> {
    let (mut service, mut port, mut nameservers, mut srv_port_name) = (None, 5432, Vec::new(), None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} requires a value\n{USAGE}"));
        match arg.as_str() {
            "--port" => port = value()?.parse().map_err(|error| format!("--port: {error}"))?,
            "--server" => {
                let server: SocketAddr = value()?.parse().map_err(|error| format!("--server: {error}"))?;
                nameservers.push(server);
            }
            "--srv" => srv_port_name = Some(value()?),
            name if !name.starts_with('-') && service.is_none() => service = Some(name.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    let mut options = DnsOptions::new(service.ok_or(USAGE)?, port);
    options.nameservers = nameservers;
    options.srv_port_name = srv_port_name;
    Ok(options)
}
