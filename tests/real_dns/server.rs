//! Runs an installed name server as a child process with its own temporary directory.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Maximum time until a server answers its first query.
const START: Duration = Duration::from_secs(10);
/// Number of ports to try. Another program may take a port before the server binds it.
const TRIES: usize = 5;

/// A running name server. Dropping it kills the process and removes the directory.
pub(crate) struct Server {
    command: Command,
    child: Child,
    address: SocketAddr,
    // The directory is removed only after `drop` has killed the process, which writes to the directory.
    directory: TempDir,
}

impl Server {
    /// Starts a name server and waits until it answers. `command` returns the server's command line for a directory and
    /// an address.
    pub(crate) fn start(command: impl Fn(&Path, SocketAddr) -> Command) -> Self {
        for _ in 0..TRIES {
            let directory = TempDir::new().expect("the temporary directory is created");
            let address = free_address();
            let mut command = command(directory.path(), address);
            let log = fs::File::create(directory.path().join("log")).expect("the log file is created");
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log file is cloned")).stderr(log);
            let child = command.spawn().expect("the name server starts");
            let mut server = Self { command, child, address, directory };
            if server.comes_up() {
                return server;
            }
            println!("{}", server.log());
        }
        panic!("the name server did not answer after {TRIES} starts");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the server's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// Sends a signal to the server by its name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success(), "signal {name} was not sent to the name server");
    }

    /// Kills the process and starts it again with the same files.
    pub(crate) fn restart(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the name server is killed");
        self.child = self.command.spawn().expect("the name server starts again");
        assert!(self.comes_up(), "the name server did not answer after its restart: {}", self.log());
    }

    /// Waits until the server answers. Returns false if its process ends or it does not answer within [`START`].
    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("the process state is readable").is_some() {
                return false;
            }
            // Checks both transports: a server may answer UDP before it listens on TCP.
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
            eprintln!("cannot kill the name server's process {}: {error}", self.child.id());
        }
    }
}

/// Returns a loopback address whose port is free for UDP and TCP.
fn free_address() -> SocketAddr {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the socket binds");
        let address = udp.local_addr().expect("the socket has an address");
        match TcpListener::bind(address) {
            Ok(_) => return address,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no port is free for both UDP and TCP");
}

/// The header of a response (RFC 1035 section 4.1.1).
pub(crate) struct Header {
    pub(crate) truncated: bool,
    /// Response code. 2 is SERVFAIL.
    pub(crate) code: u8,
    /// Number of records in the answer section.
    pub(crate) answers: u16,
}

/// Sends one UDP query and returns the header of the response. If `payload` is set, the query has an EDNS record that
/// advertises this UDP payload size.
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
        // OPT record: root name, type 41, the payload size as class, no flags, no options (RFC 6891 section 6.1.2).
        packet.extend([0, 0, 41]);
        packet.extend(payload.to_be_bytes());
        packet.extend([0; 6]);
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?; // a closed port fails immediately
    socket.connect(server)?;
    socket.send(&packet)?;
    let mut response = [0; 4096];
    let length = socket.recv(&mut response)?;
    if length < 12 || response[..2] != packet[..2] {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(Header {
        truncated: response[2] & 2 != 0,
        code: response[3] & 15,
        answers: u16::from_be_bytes([response[6], response[7]]),
    })
}

/// Runs a program with `input` on its standard input and returns its output.
pub(crate) fn run(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes())
        .expect("the program reads its input");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?} failed: {status}: {text}");
    text
}
