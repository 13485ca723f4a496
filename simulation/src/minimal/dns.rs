use std::net::Ipv4Addr;

use crate::world::Host;

/// Time to live of every response, in seconds.
const TTL: u32 = 5;

/// Starts an authoritative name server that knows these addresses for every name.
pub(super) fn start(host: &Host, address: Ipv4Addr, pods: Vec<Ipv4Addr>) {
    let socket = host.bind_udp((address, 53).into()).expect("the port of the name server is free");
    host.run(async move {
        while let Ok((query, source)) = socket.receive().await {
            // A response that cannot be sent is lost, like one that the network loses.
            let _ = answer(&query, &pods).map(|answer| socket.send_to(&answer, source));
        }
    });
}

/// Returns the response to a query with one question: the addresses for A, and none for another type.
fn answer(query: &[u8], pods: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name_end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let kind = query.get(name_end + 1..name_end + 3)?;
    let records = if kind == [0, 1] { pods } else { &[] };
    let mut answer = query[..2].to_vec();
    // Response, authoritative, recursion desired and available, one question.
    answer.extend([0x85, 0x80, 0, 1]);
    answer.extend((records.len() as u16).to_be_bytes());
    answer.extend([0, u8::from(records.is_empty()), 0, 0]);
    answer.extend(query.get(12..name_end + 5)?);
    for address in records {
        // The owner is a pointer to the name in the question.
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    if records.is_empty() {
        // The SOA of the root: both of its names are empty, and the last of its five numbers is the negative TTL.
        answer.extend([0, 0, 6, 0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 22, 0, 0]);
        answer.extend([1, 1, 1, 1, TTL].into_iter().flat_map(u32::to_be_bytes));
    }
    Some(answer)
}
