//! The programs as processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::measure::cpu_of;

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);
/// What a program logs once it works.
const READY: &str = "ready";

/// Where the programs are.
pub(super) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Beside this one.
    pub(super) fn find() -> Result<Self> {
        let directory = crate::programs_directory()?;
        for name in ["app1", "model_server_sub", "model_server_pub", "app2"] {
            let path = directory.join(name);
            ensure!(
                path.is_file(),
                "{} is missing: build the workspace in the same profile as this program",
                path.display()
            );
        }
        Ok(Self { directory })
    }

    /// Starts one; its log goes to a file in the folder of the ini file.
    pub(super) fn start(
        &self,
        name: &'static str,
        ini: &Path,
        arguments: &[&str],
    ) -> Result<Program> {
        let log = ini.with_file_name(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = Command::new(self.directory.join(name))
            .arg("--config")
            .arg(ini)
            .args(arguments)
            .env("FOREBAY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Program { name, child, log })
    }
}

/// A running program; killed where it is dropped before it has ended.
pub(super) struct Program {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Waits until it says that it works.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.log()?.contains(READY) {
            self.check()?;
            ensure!(started.elapsed() < START_MAX, "{} is not ready: {}", self.name, self.log()?);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Fails where it has ended by itself; to be called only where it should not have.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.log()?),
            None => Ok(()),
        }
    }

    /// Waits for one that ends by itself: the CPU time that it used. The system tells it as
    /// long as the process was not waited for.
    pub(super) fn finish(mut self, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        while !self.has_ended()? {
            let late = started.elapsed() > within;
            ensure!(!late, "{} does not end: {}", self.name, self.log()?);
            std::thread::sleep(PAUSE);
        }
        let cpu = self.cpu()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.log()?);
        Ok(cpu)
    }

    /// Asks it to end and waits for it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{} ended with {status}: {}", self.name, self.log()?);
                return Ok(());
            }
            ensure!(started.elapsed() < STOP_MAX, "{} does not end: {}", self.name, self.log()?);
            std::thread::sleep(PAUSE);
        }
    }

    /// The CPU time that it has used so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Whether it is a zombie.
    fn has_ended(&self) -> Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} has no process id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn log(&self) -> Result<String> {
        let path = &self.log;
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
