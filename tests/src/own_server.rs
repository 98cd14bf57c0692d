//! A server that a test has for itself, to stop and suspend as it likes.

use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::repository;

/// A server of `scripts/servers` in a folder of its own; it ends with its owner.
#[derive(Debug)]
pub struct OwnServer {
    name: &'static str,
    state: TempDir,
    /// What clients connect to.
    pub address: String,
}

impl OwnServer {
    /// Starts one: `kafka`, `pubsub` or `redis`.
    pub fn start(name: &'static str) -> Self {
        let mut server = Self { name, state: tempfile::tempdir().unwrap(), address: String::new() };
        let output = server.run("up");
        let exports = String::from_utf8(output.stdout).unwrap();
        let variable = format!("export FOREBAY_TEST_{}=", name.to_uppercase());
        let address = exports.lines().find_map(|line| line.strip_prefix(&variable));
        address.unwrap().clone_into(&mut server.address);
        server
    }

    /// Holds the process still; connections to it stay open.
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Kills it without a warning.
    pub fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
    }

    /// Starts it again on the same port and data.
    pub fn restart(&self) {
        self.run("restart");
    }

    fn pid(&self) -> Pid {
        let path = self.state.path().join(self.name).join("pid");
        let pid = std::fs::read_to_string(path).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    fn run(&self, command: &str) -> Output {
        let mut servers = Command::new(repository().join("scripts/servers"));
        servers.arg("--state").arg(self.state.path()).args([command, self.name]);
        let output = servers.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {}: {said}", self.name);
        output
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // One that is held still does not end when it is asked to.
        let _ = kill_process(self.pid(), Signal::CONT);
        self.run("down");
    }
}
