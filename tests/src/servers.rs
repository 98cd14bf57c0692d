//! Real servers, found by the environment that `scripts/servers` sets.

use std::fs::File;

use redis::{Client, Connection, cmd};
use rustix::process::{Pid, Signal, kill_process};

use crate::ini::Ini;

/// A server's address. Without one a test cannot run: it says so, and fails where
/// `FOREBAY_REQUIRE_SERVERS` is set, as `make test` does.
fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok();
    if address.is_none() {
        cannot_run(&format!("{variable} is not set: start a server with scripts/servers"));
    }
    address
}

/// Tells why a test does not run; fails where it must.
pub fn cannot_run(why: &str) {
    assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{why}");
    eprintln!("not run: {why}");
}

/// Kafka's address as host:port.
pub fn kafka() -> Option<String> {
    address("FOREBAY_TEST_KAFKA")
}

/// A Redis, and the keys of one queue in it, which are deleted in the end.
pub struct Redis {
    /// Its address.
    pub url: String,
    queue: String,
    connection: Connection,
}

impl Redis {
    /// The server that the environment names.
    pub fn found(queue: &str) -> Option<Self> {
        let url = address("FOREBAY_TEST_REDIS")?;
        let connection = Client::open(url.as_str()).unwrap().get_connection().unwrap();
        Some(Self { url, queue: queue.to_owned(), connection })
    }

    /// Connects anew, after a restart.
    pub fn again(&self) -> Self {
        Self::found(&self.queue).expect("it was there before")
    }

    /// Makes it the queue of an ini file.
    pub fn serve(&self, ini: &mut Ini) {
        ini.set("queue", "kind", "redis");
        ini.set("queue", "url", &self.url).set("queue", "name", &self.queue);
    }

    /// How many entries one of the queue's lists has: `entries` or `pending`.
    pub fn length(&mut self, list: &str) -> u64 {
        let key = self.key(list);
        cmd("LLEN").arg(key).query(&mut self.connection).unwrap()
    }

    /// The process that holds the publisher's lease.
    pub fn owner(&mut self) -> Option<u32> {
        let key = self.key("owner");
        let token: Option<String> = cmd("GET").arg(key).query(&mut self.connection).unwrap();
        token.map(|token| token.rsplit('-').next().unwrap().parse().unwrap())
    }

    /// Holds the server still until the guard is dropped.
    pub fn pause(&mut self) -> Paused {
        let info: String = cmd("INFO").arg("server").query(&mut self.connection).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Paused { pid }
    }

    fn key(&self, part: &str) -> String {
        format!("{{{}}}:{part}", self.queue)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let keys = ["entries", "pending", "owner", "fence"].map(|part| self.key(part));
        // The server may be gone by now, and its data with it.
        let _ = cmd("DEL").arg(&keys).query::<u64>(&mut self.connection);
    }
}

/// A server that is held still.
#[derive(Debug)]
pub struct Paused {
    pid: Pid,
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::CONT);
    }
}

/// Tests with load take turns, over all processes: otherwise they measure each other, and on
/// Kafka the groups of their programs are the same.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for the turn, which lasts as long as the value.
    pub fn take() -> Self {
        let path = std::env::temp_dir().join("forebay-system-tests.lock");
        let lock = File::options().create(true).append(true).open(path).unwrap();
        lock.lock().unwrap();
        Self { _lock: lock }
    }
}
