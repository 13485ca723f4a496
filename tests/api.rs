//! What the public types promise to the compiler.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use podpool::{CancelToken, Client, Config, Endpoint, Error, Event, Events, Pool, Status, Target, tokio_postgres};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

fn shared<T: Send + Sync + 'static>() {}
fn sendable<T: Send>(_: &T) {}

#[test]
fn types_go_between_threads() {
    shared::<Pool>();
    shared::<Client>();
    shared::<CancelToken>();
    shared::<Config>();
    shared::<Endpoint>();
    shared::<Error>();
    shared::<Event>();
    shared::<Events>();
    shared::<Status>();
}

/// Never called: that it compiles is the test.
#[expect(dead_code, reason = "compiled only")]
fn futures_go_between_threads(pool: &Pool, client: &mut Client, token: &CancelToken, events: &mut Events) {
    sendable(&Pool::connect(""));
    sendable(&pool.get());
    sendable(&pool.get_for(Target::Standby));
    sendable(&pool.primary());
    sendable(&pool.wait_ready(Target::Any, std::time::Duration::ZERO));
    sendable(&pool.close());
    let work = |client: Client| async move { client.query_one("SELECT 1", &[]).await };
    sendable(&pool.retry(Target::Any, work));
    sendable(&pool.retry_unapplied(Target::Any, |client: Client| async move {
        client.execute("SELECT 1", &[]).await.map(drop).map_err(Box::<tokio_postgres::Error>::from)
    }));
    sendable(&token.cancel());
    sendable(&events.next());
    sendable(&client.transaction());
}

/// Every method of deadpool-postgres's `ClientWrapper` and of the driver's client, as users know them.
#[expect(dead_code, reason = "compiled only")]
async fn a_client_is_the_client_that_users_know(mut client: Client) -> Result<(), tokio_postgres::Error> {
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
    let _ = (client.endpoint(), client.role(), client.cancel_token(), client.is_closed());
    Ok(())
}

/// A connector of a user's own, for tokio's socket alone.
#[derive(Clone)]
struct Own;

/// What it makes.
struct OwnStream(tokio::net::TcpStream);

impl MakeTlsConnect<tokio::net::TcpStream> for Own {
    type Stream = OwnStream;
    type TlsConnect = Own;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, _domain: &str) -> Result<Own, std::io::Error> {
        Ok(Own)
    }
}

impl TlsConnect<tokio::net::TcpStream> for Own {
    type Stream = OwnStream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<OwnStream, std::io::Error>> + Send>>;

    fn connect(self, socket: tokio::net::TcpStream) -> Self::Future {
        Box::pin(async move { Ok(OwnStream(socket)) })
    }
}

impl TlsStream for OwnStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for OwnStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OwnStream {
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
async fn a_connector_of_the_users_fits_whatever_its_types() {
    let config = || "postgres://app@127.0.0.1/shop?sslmode=require".parse::<Config>().expect("a URL");
    let pool: Pool = Pool::builder(config()).tls_connector(Own).build().expect("a pool without type parameters");
    drop(pool);
    #[cfg(not(feature = "rustls"))]
    {
        let error = Pool::builder(config()).build().expect_err("no TLS");
        assert_eq!(error.kind(), podpool::Kind::Config);
        assert!(error.to_string().contains("feature `rustls`"), "{error}");
    }
}
