//! The Pods' network: one pair of virtual interfaces per Pod, and routes on the node.
//!
//! Packets between Pods pass through the node's `forward` hook, where a Pod can be cut off. Packets to an address
//! without a Pod are dropped without a response, as with most network plugins.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::shell::script;

/// The node's address, on which the API server listens.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The address of the cluster's name server.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The address of the node's end of each pair of interfaces.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The node's side of the network.
pub(crate) struct Network {
    /// Number of the next Pod. Addresses are not reused.
    next: AtomicU32,
}

impl Network {
    /// Configures the interfaces, routes and rules of the node.
    pub(crate) async fn new() -> Self {
        script(&format!(
            "ip link set lo up
            ip address add {NODE}/32 dev lo
            ip address add {DNS}/32 dev lo
            echo 1 >/proc/sys/net/ipv4/ip_forward
            ip route add blackhole 10.77.0.0/16
            nft 'table ip podpool {{
                set cut {{ type ipv4_addr; }}
                chain forward {{ type filter hook forward priority 0; ip saddr @cut drop; ip daddr @cut drop; }}
                chain input {{ type filter hook input priority 0; ip saddr @cut drop; }}
                chain output {{ type filter hook output priority 0; ip daddr @cut drop; }}
            }}'"
        ))
        .await;
        Self { next: AtomicU32::new(2) }
    }

    /// Connects the network namespace of a process to the node. Returns the address of the new Pod.
    pub(crate) async fn attach(&self, pid: u32) -> Ipv4Addr {
        // Only the counter itself is shared, so no other access has to be ordered.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 0, 0)) + number);
        script(&format!(
            "ip link add pod{number} type veth peer name eth0 netns {pid}
            nsenter --net=/proc/{pid}/ns/net sh -euc '
                ip link set lo up
                ip address add {address}/32 dev eth0
                ip link set eth0 up
                ip route add {GATEWAY} dev eth0 scope link
                ip route add default via {GATEWAY}'
            ip address add {GATEWAY}/32 dev pod{number}
            ip link set pod{number} up
            ip route add {address}/32 dev pod{number} src {NODE}"
        ))
        .await;
        address
    }

    /// Drops all packets from and to a Pod.
    pub(crate) async fn cut(&self, pod: Ipv4Addr) {
        script(&format!("nft add element ip podpool cut '{{ {pod} }}'")).await;
    }

    /// Ends the effect of [`cut`](Self::cut).
    pub(crate) async fn restore(&self, pod: Ipv4Addr) {
        script(&format!("nft delete element ip podpool cut '{{ {pod} }}'")).await;
    }
}
