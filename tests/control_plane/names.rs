//! Queries the Service's addresses from CoreDNS, independently of the pool.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{net::UdpSocket, time::timeout};

use crate::{manifests::SERVICE, network::DNS, observed::Observed};

/// Interval between two queries.
const PACE: Duration = Duration::from_millis(20);
/// Time limit for a response.
const LIMIT: Duration = Duration::from_millis(300);

/// Records every change of the addresses that CoreDNS returns.
pub(crate) async fn observe(observed: Observed) {
    for id in (0..=u16::MAX).cycle() {
        let sent = Instant::now();
        if let Some(addresses) = timeout(LIMIT, query(id)).await.ok().flatten() {
            observed.published(sent, addresses);
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Returns the addresses, or `None` if the server does not respond or returns an error.
async fn query(id: u16) -> Option<BTreeSet<Ipv4Addr>> {
    let name: Name = format!("{SERVICE}.").parse().expect("the name parses");
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(SocketAddr::from((DNS, 53))).await.ok()?;
    socket.send(&query.to_vec().expect("the query is encoded")).await.ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.ok()?;
    let response = Message::from_vec(&buffer[..length]).ok()?;
    match response.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        _ => return None,
    }
    let address = |data: &RData| if let RData::A(address) = data { Some(address.0) } else { None };
    Some(response.answers.iter().filter_map(|record| address(&record.data)).collect())
}
