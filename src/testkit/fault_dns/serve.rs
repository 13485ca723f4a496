//! Receives queries and sends the responses, over UDP and TCP.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::proto::op::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::sleep,
};

use super::{Fault, Shared, Tcp, answer::response};

pub(super) async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Mutex<Shared>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let received = shared.lock().unwrap_or_else(PoisonError::into_inner).receive(&request, false);
        let Some((question, fault)) = received else { continue };
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Fault::Delay(delay) = fault {
                sleep(delay).await;
            }
            let Some(bytes) = response(&shared, &request, &question, &fault, false) else { return };
            // Ignore errors: the client may have closed its socket.
            let _ = match fault {
                Fault::WrongSource => match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await {
                    Ok(other) => other.send_to(&bytes, peer).await,
                    Err(error) => Err(error),
                },
                _ => socket.send_to(&bytes, peer).await,
            };
        });
    }
}

pub(super) async fn serve_tcp(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                // Ignore errors: the client may have closed the connection.
                let _ = serve_connection(stream, shared).await;
            }
        });
        let tasks = &mut shared.lock().unwrap_or_else(PoisonError::into_inner).tcp;
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }
}

async fn serve_connection(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        let Ok(request) = Message::from_vec(&buffer) else { continue };
        let received = shared.lock().unwrap_or_else(PoisonError::into_inner).receive(&request, true);
        let Some((question, fault)) = received else { continue };
        if let Fault::Delay(delay) = fault {
            sleep(delay).await;
        }
        let reaction = if let Fault::Truncate(_, tcp) = fault { tcp } else { Tcp::Answer };
        match reaction {
            Tcp::Close => return Ok(()),
            Tcp::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            // Discard input until the client closes the connection.
            Tcp::Hang => {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                return Ok(());
            }
            Tcp::Answer | Tcp::CloseAfter | Tcp::Slow(_) => {}
        }
        let Some(body) = response(&shared, &request, &question, &fault, true) else { continue };
        // Send the length prefix and the message in one write, so that they share a TCP segment, as with real name
        // servers.
        let length = u16::try_from(body.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_be_bytes()[..], &body].concat();
        if let Tcp::Slow(delay) = reaction {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                sleep(delay).await;
            }
        } else {
            stream.write_all(&bytes).await?;
        }
        if reaction == Tcp::CloseAfter {
            return Ok(());
        }
    }
}
