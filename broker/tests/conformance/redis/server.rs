//! Servers that a test starts, stops and suspends as it likes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `redis-server` in a directory of its own.
pub(super) struct Server {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

/// A port that nobody listens on.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A server with an append-only file and further arguments.
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::open(&[&["--appendonly", "yes", "--save", ""], arguments].concat())
    }

    /// A server that is not one of data, with a file to begin with.
    pub(super) fn start_with_file(file: &Path, arguments: &[&str]) -> Self {
        Self::open(&[&[file.to_str().unwrap()], arguments].concat())
    }

    fn open(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let port = free_port();
        let child = spawn(port, &directory, &arguments);
        let server = Self { child, port, directory, arguments };
        server.wait_until_it_answers();
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the process without a warning.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port and data.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.port, &self.directory, &self.arguments);
        self.wait_until_it_answers();
    }

    /// Suspends the process, which keeps its connections.
    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status().unwrap();
        assert!(sent.success(), "{name} to {process}");
    }

    fn wait_until_it_answers(&self) {
        let start = Instant::now();
        while !answers(self.port) {
            assert!(start.elapsed() < PATIENCE, "no server answers on {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(port: u16, directory: &tempfile::TempDir, arguments: &[String]) -> Child {
    // A file comes before all other arguments.
    Command::new("redis-server")
        .args(arguments.iter().filter(|argument| argument.ends_with(".conf")))
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(directory.path())
        .args(arguments.iter().filter(|argument| !argument.ends_with(".conf")))
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server can be started")
}

/// Whether it can be asked: one that refuses an unknown user answers too.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut reply = [0; 7];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && (reply.starts_with(b"+PONG") || reply.starts_with(b"-NOAUTH"))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is over already where the test killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
