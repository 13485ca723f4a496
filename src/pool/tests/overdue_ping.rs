//! Pings whose response arrives after the caller has stopped waiting for it, in simulated time.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Duration, Instant, sleep},
};

use super::{
    backends::{facts, message, row},
    fleet::endpoint,
};
use crate::{
    config::{Config, Target},
    discovery::{Resolution, Resolve, ResolveError},
    endpoint::Role,
    pool::Pool,
};

/// Time until each response: several times as long as a caller waits for the response to a ping.
const ROUND_TRIP: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct OnePod;

impl Resolve for OnePod {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async { Ok(Resolution::new(vec![endpoint(0)], Instant::now() + Duration::from_secs(30))) })
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

/// Serves one session like a server before PostgreSQL 14, which does not report `in_hot_standby`.
async fn serve(mut stream: DuplexStream, is_standby: Arc<AtomicBool>) -> io::Result<()> {
    let mut startup = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut startup).await?;
    sleep(ROUND_TRIP).await;
    stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).await?;
    loop {
        let kind = stream.read_u8().await?;
        let mut body = vec![0; stream.read_u32().await? as usize - 4];
        stream.read_exact(&mut body).await?;
        sleep(ROUND_TRIP).await;
        let is_standby = is_standby.load(Ordering::Relaxed);
        let asks_for = |name: &[u8]| body.windows(name.len()).any(|text| text == name);
        match kind {
            b'S' => stream.write_all(&message(b'Z', b"I")).await?,
            b'Q' if asks_for(b"pg_control_system") => stream.write_all(&facts(usize::from(is_standby))).await?,
            b'Q' if asks_for(b"pg_is_in_recovery") => {
                stream.write_all(&row(&[Some(if is_standby { "t" } else { "f" })])).await?;
            }
            b'Q' => stream.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).await?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

#[test]
fn a_session_from_before_a_promotion_is_closed_if_the_server_does_not_report_its_role() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let is_standby = Arc::new(AtomicBool::new(true));
        let config = Config::new("simulated.svc.cluster.local").expect("a name").with_user("user");
        let pool = Pool::builder(config).resolver(OnePod).build().expect("a pool");
        let served = is_standby.clone();
        pool.0.inner.shared.dialer.get().expect("the pool exists").simulate(move |_| {
            let (stream, server) = duplex(4096);
            // The session ends with an error when the client closes the stream.
            drop(tokio::spawn({
                let is_standby = served.clone();
                async move { serve(server, is_standby).await.ok() }
            }));
            stream
        });
        drop(pool.get_for(Target::Standby).await.expect("a connection to the standby"));
        is_standby.store(false, Ordering::Relaxed);
        let client = pool.get_for(Target::Primary).await.expect("a connection to the promoted server");
        assert_eq!(client.role(), Role::Primary);
    });
}
