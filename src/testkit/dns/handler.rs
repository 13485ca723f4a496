//! Handles queries: answers them from the zone, or fails as configured.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hickory_server::{
    net::{runtime::Time, xfer::Protocol},
    proto::{
        op::{self, Edns, Header, HeaderCounts, Metadata, OpCode},
        rr::RecordType,
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tracing::debug;

use super::{
    Queries, ResponseCode,
    zone::{Answer, Zone},
};
use crate::testkit::lock;

/// Maximum size of a UDP response, in bytes, even if the client accepts larger responses. CoreDNS has the same limit.
const UDP_LIMIT: u16 = 1232;

/// The server's reaction to queries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Answers from the zone.
    Answering,
    /// Responds with this code.
    Failing(ResponseCode),
    /// Does not respond.
    Paused,
}

/// State that the server's thread shares with its owner.
pub(super) struct Shared {
    pub(super) zone: Mutex<Zone>,
    pub(super) mode: Mutex<Mode>,
    pub(super) delay: Mutex<Duration>,
    pub(super) counters: Counters,
}

/// Counters of the received queries. Relaxed: the counters order no other memory access.
#[derive(Default)]
pub(super) struct Counters {
    a: AtomicU64,
    aaaa: AtomicU64,
    srv: AtomicU64,
    other: AtomicU64,
    tcp: AtomicU64,
}

impl Counters {
    fn count(&self, kind: Option<RecordType>, protocol: Protocol) {
        let counter = match kind {
            Some(RecordType::A) => &self.a,
            Some(RecordType::AAAA) => &self.aaaa,
            Some(RecordType::SRV) => &self.srv,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if protocol == Protocol::Tcp {
            self.tcp.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Queries {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Queries {
            a: read(&self.a),
            aaaa: read(&self.aaaa),
            srv: read(&self.srv),
            other: read(&self.other),
            tcp: read(&self.tcp),
        }
    }
}

/// The request handler of the server's sockets.
pub(super) struct Handler(pub(super) Arc<Shared>);

impl Handler {
    async fn handle<R: ResponseHandler>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let no_response = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let shared = &self.0;
        let query = request.request_info().ok().map(|info| info.query);
        shared.counters.count(query.map(|query| query.query_type()), request.protocol());
        let delay = *lock(&shared.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let failed = |code| Answer { code, answers: Vec::new(), authority: None, additionals: Vec::new() };
        let mode = *lock(&shared.mode);
        let answer = match (mode, query) {
            (Mode::Paused, _) => return no_response,
            (Mode::Failing(code), _) => failed(code.into()),
            (Mode::Answering, None) => failed(op::ResponseCode::FormErr),
            (Mode::Answering, _) if metadata.op_code != OpCode::Query => failed(op::ResponseCode::NotImp),
            (Mode::Answering, Some(query)) => lock(&shared.zone).answer(query.name(), query.query_type()),
        };
        metadata.response_code = answer.code;
        metadata.authoritative = mode == Mode::Answering && answer.code != op::ResponseCode::Refused;
        let edns = request.edns.as_ref().map(|requested| {
            let mut edns = Edns::new();
            edns.set_max_payload(requested.max_payload().clamp(512, UDP_LIMIT));
            edns
        });
        let message = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &answer.answers,
            [],
            &answer.authority,
            &answer.additionals,
        );
        response.send_response(message).await.unwrap_or_else(|error| {
            debug!(%error, "cannot send a DNS response; the client may have closed its socket");
            no_response
        })
    }
}

impl RequestHandler for Handler {
    // The trait uses `#[async_trait]`. This is its expansion, written by hand, because one method does not justify the
    // dependency.
    fn handle_request<'life0, 'life1, 'async_trait, R, T>(
        &'life0 self,
        request: &'life1 Request,
        response_handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'async_trait>>
    where
        R: ResponseHandler + 'async_trait,
        T: Time + 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.handle(request, response_handle))
    }
}
