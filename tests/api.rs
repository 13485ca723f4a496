//! Compile-time tests of the public API: `Send` and `Sync`, method signatures, and custom TLS connectors.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use podpool::{
    CancelToken, Checkout, Client, Config, Endpoint, Error, Event, Events, Listener, Pool, Status, Target, Transaction,
    tokio_postgres,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

fn shared<T: Send + Sync + 'static>() {}
fn sendable<T: Send>(_: &T) {}

#[test]
fn public_types_are_send_and_sync() {
    shared::<Pool>();
    shared::<Client>();
    shared::<CancelToken>();
    shared::<Config>();
    shared::<Endpoint>();
    shared::<Error>();
    shared::<Event>();
    shared::<Events>();
    shared::<Listener>();
    shared::<Status>();
    shared::<Transaction>();
}

/// Fails to compile if a future that the public API returns is not `Send`.
#[expect(dead_code, reason = "compiled only")]
fn futures_are_send(pool: &Pool, client: &mut Client, token: &CancelToken, events: &mut Events) {
    sendable(&Pool::connect(""));
    sendable(&pool.get());
    sendable(&pool.get_for(Target::Standby));
    sendable(&pool.get_within(Checkout::new(Target::Any), std::time::Duration::ZERO));
    sendable(&pool.primary());
    sendable(&pool.wait_ready(Target::Any, std::time::Duration::ZERO));
    sendable(&pool.close());
    let work = |client: Client| async move { client.query_one("SELECT 1", &[]).await };
    sendable(&pool.retry(Target::Any, work));
    sendable(&pool.retry_unapplied(Target::Any, |client: Client| async move {
        client.execute("SELECT 1", &[]).await.map(drop).map_err(Box::<tokio_postgres::Error>::from)
    }));
    sendable(&pool.transaction(Target::Primary, |transaction| async move {
        transaction.execute("SELECT 1", &[]).await.map(drop)
    }));
    sendable(&pool.listen(Target::Primary, ["orders"]));
    sendable(&token.cancel());
    sendable(&events.next());
    sendable(&client.transaction());
    sendable(&pool.connect_owned(Target::Primary));
}

/// Fails to compile if [`Events`] is not a `Stream`.
#[expect(dead_code, reason = "compiled only")]
async fn events_are_a_stream(events: Events) {
    use futures_util::StreamExt as _;
    let mut names = events.filter_map(|event| std::future::ready(event.ok())).map(|event| event.name());
    let _: Option<&'static str> = names.next().await;
}

/// Fails to compile if [`Client`] lacks a method of deadpool-postgres's `ClientWrapper` or tokio-postgres's `Client`.
#[expect(dead_code, reason = "compiled only")]
async fn client_has_the_driver_methods(mut client: Client) -> Result<(), tokio_postgres::Error> {
    let statement = client.prepare_cached("SELECT 1").await?;
    client.prepare_typed_cached("SELECT $1", &[tokio_postgres::types::Type::INT4]).await?;
    client.query(&statement, &[]).await?;
    client.query_opt("SELECT 1", &[]).await?;
    client.simple_query("SELECT 1").await?;
    client.statement_cache.clear();
    let mut transaction = client.transaction().await?;
    transaction.prepare_cached("SELECT 1").await?;
    transaction.savepoint("here").await?.rollback().await?;
    transaction.commit().await?;
    client.build_transaction().read_only(true).start().await?.commit().await?;
    fn generic(_: &impl tokio_postgres::GenericClient) {}
    generic(&**client);
    generic(client.raw_mut());
    // The traits of both crates are sealed, so `Client` cannot implement them. Each has an implementation for the
    // transaction.
    let transaction = client.transaction().await?;
    generic(&*transaction);
    fn cached(_: &impl podpool::deadpool_postgres::GenericClient) {}
    cached(&transaction);
    drop(transaction);
    let _ = (client.endpoint(), client.role(), client.cancel_token(), client.is_closed());
    Ok(())
}

/// A custom TLS connector that accepts only tokio's TCP streams.
#[derive(Clone)]
struct CustomConnector;

/// The stream of a [`CustomConnector`].
struct CustomStream(tokio::net::TcpStream);

impl MakeTlsConnect<tokio::net::TcpStream> for CustomConnector {
    type Stream = CustomStream;
    type TlsConnect = CustomConnector;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, _domain: &str) -> Result<CustomConnector, std::io::Error> {
        Ok(CustomConnector)
    }
}

impl TlsConnect<tokio::net::TcpStream> for CustomConnector {
    type Stream = CustomStream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<CustomStream, std::io::Error>> + Send>>;

    fn connect(self, socket: tokio::net::TcpStream) -> Self::Future {
        Box::pin(async move { Ok(CustomStream(socket)) })
    }
}

impl TlsStream for CustomStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for CustomStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for CustomStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn pool_accepts_a_custom_tls_connector() {
    let config = || "postgres://app@127.0.0.1/shop?sslmode=require".parse::<Config>().expect("the URL parses");
    let pool: Pool = Pool::builder(config()).tls_connector(CustomConnector).build().expect("the pool is created");
    drop(pool);
    #[cfg(not(feature = "_tls"))]
    {
        let error = Pool::builder(config()).build().expect_err("TLS is not compiled in");
        assert_eq!(error.kind(), podpool::Kind::Config);
        assert!(error.to_string().contains("feature `rustls`"), "{error}");
        let strict = "postgres://app@127.0.0.1/shop?security=strict".parse::<Config>().expect("the URL parses");
        let error = Pool::builder(strict).build().expect_err("TLS is not compiled in").to_string();
        assert!(error.contains("security") && error.contains("feature `rustls`"), "{error}");
        assert!(!error.contains("sslmode") && !error.contains("tls_connector"), "{error}");
    }
}
