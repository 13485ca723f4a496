//! A server that accepts every login and answers every statement.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    network::{TcpListener, TcpStream},
    world::Host,
};

/// A server on one host.
#[derive(Clone)]
pub(super) struct Postgres {
    pub(super) host: Host,
    pub(super) is_standby: bool,
    /// Number of executed statements of the workload.
    pub(super) statements: Arc<AtomicUsize>,
}

impl Postgres {
    pub(super) async fn run(self, listener: TcpListener) {
        while let Ok((stream, peer)) = listener.accept().await {
            let server = self.clone();
            self.host.event(format_args!("accepts a connection from {peer}"));
            self.host.run(async move {
                let end = server.serve(stream).await;
                server
                    .host
                    .event(format_args!("the connection from {peer} ends: {:?}", end.map_err(|error| error.kind())));
            });
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let length = stream.read_u32().await?;
        stream.read_exact(&mut vec![0; length as usize - 4]).await?;
        let mut out = message(b'R', &[0; 4]);
        let standby = if self.is_standby { "on" } else { "off" };
        for (name, value) in [
            ("server_version", "17.2"),
            ("client_encoding", "UTF8"),
            ("in_hot_standby", standby),
            ("default_transaction_read_only", "off"),
        ] {
            out.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
        }
        out.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
        out.extend(message(b'Z', b"I"));
        loop {
            stream.write_all(&out).await?;
            out.clear();
            while !out.ends_with(b"Z\0\0\0\x05I") {
                let Ok(kind) = stream.read_u8().await else { return Ok(()) };
                let length = stream.read_u32().await?;
                let mut body = vec![0; length as usize - 4];
                stream.read_exact(&mut body).await?;
                if kind == b'X' {
                    return Ok(());
                }
                self.respond(kind, &body, &mut out);
            }
        }
    }

    fn respond(&self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        match kind {
            b'Q' => {
                let text = String::from_utf8_lossy(body);
                if text.starts_with("SELECT 'work'") {
                    self.statements.fetch_add(1, Ordering::Relaxed);
                    self.host.event("executes a statement");
                }
                // Each column of the result is NULL, which podpool takes for an unknown fact.
                let columns = text.matches(',').count() + 1;
                let column =
                    [b"c\0".as_slice(), &[0; 6], &[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]].concat();
                let count = (columns as u16).to_be_bytes();
                out.extend(message(b'T', &[&count, column.repeat(columns).as_slice()].concat()));
                out.extend(message(b'D', &[&count, [0xff; 4].repeat(columns).as_slice()].concat()));
                out.extend(message(b'C', b"SELECT 1\0"));
                out.extend(message(b'Z', b"I"));
            }
            b'S' => out.extend(message(b'Z', b"I")),
            _ => {}
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], (body.len() as u32 + 4).to_be_bytes().as_slice(), body].concat()
}
