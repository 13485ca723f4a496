//! A name server from the system's packages, as a process of its own in a directory of its own.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a server may take to answer its first question.
const START: Duration = Duration::from_secs(10);
/// How many ports are tried: another program may take one between its choice and the server's start.
const TRIES: usize = 5;

/// The server. Dropping it ends its process and removes its directory.
pub(crate) struct Server {
    command: Command,
    child: Child,
    address: SocketAddr,
    // Removed last: the process still writes there.
    directory: TempDir,
}

impl Server {
    /// Starts a program as `command` tells from its directory and address, and returns when it answers.
    pub(crate) fn start(command: impl Fn(&Path, SocketAddr) -> Command) -> Self {
        for _ in 0..TRIES {
            let directory = TempDir::new().expect("a directory");
            let address = free_address();
            let mut command = command(directory.path(), address);
            let log = fs::File::create(directory.path().join("log")).expect("a log");
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
            let child = command.spawn().expect("the server's program starts");
            let mut server = Self { command, child, address, directory };
            if server.comes_up() {
                return server;
            }
            println!("{}", server.log());
        }
        panic!("the server did not come up {TRIES} times");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// Sends a signal by its name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// Ends its process and starts it again, with the files it has.
    pub(crate) fn restart(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("its end");
        self.child = self.command.spawn().expect("the server's program starts again");
        assert!(self.comes_up(), "{}", self.log());
    }

    /// Whether it answers; no when its process has ended.
    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            // By both: a server that answers UDP does not listen for TCP yet.
            if ask(self.address, "cluster.local", 6, None).is_ok() && TcpStream::connect(self.address).is_ok() {
                return true;
            }
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("the name server's process {} is not ended: {error}", self.child.id());
        }
    }
}

/// An address on loopback whose port nobody has, neither by UDP nor by TCP.
fn free_address() -> SocketAddr {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = udp.local_addr().expect("its address");
        match TcpListener::bind(address) {
            Ok(_) => return address,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no port is free by UDP and TCP");
}

/// An answer's header: whether it is truncated, its code, and how many answers it has.
pub(crate) struct Header {
    pub(crate) truncated: bool,
    pub(crate) code: u8,
    pub(crate) answers: u16,
}

/// Asks by one UDP packet, past every resolver. `payload`: the size of answers that EDNS offers.
pub(crate) fn ask(server: SocketAddr, name: &str, kind: u16, payload: Option<u16>) -> io::Result<Header> {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
    for label in name.trim_end_matches('.').split('.') {
        packet.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    if let Some(payload) = payload {
        // The root, type OPT, the size as class, no flags, no options (RFC 6891 section 6.1.2).
        packet.extend([0, 0, 41]);
        packet.extend(payload.to_be_bytes());
        packet.extend([0; 6]);
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.connect(server)?;
    socket.send(&packet)?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer)?;
    if length < 12 || answer[..2] != packet[..2] {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(Header {
        truncated: answer[2] & 2 != 0,
        code: answer[3] & 15,
        answers: u16::from_be_bytes([answer[6], answer[7]]),
    })
}

/// Runs a program that reads `input`, and returns what it printed.
pub(crate) fn run(mut command: Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {text}");
    text
}
