//! The processes of a run: started, watched, and ended.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use model_server::process::{Failure, Reason};
use rustix::process::{Pid, Signal, kill_process};

use super::place::{Place, unwritable};
use crate::attached;
use crate::signals::Signals;

/// The program that ends by itself, once it has published everything.
pub(super) const PUBLISHER: &str = "app1";
/// The programs that serve, in the order in which they are started.
pub(super) const SERVING: [&str; 3] = ["model_server_sub", "model_server_pub", "app2"];
/// How long a process may drain; the programs give themselves 30 s.
const GRACE: Duration = Duration::from_secs(35);
/// How often processes that should end are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How many lines of a log are shown.
const LOG_LINES: usize = 12;

/// Where the four programs are, and this one.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) own: PathBuf,
    directory: PathBuf,
}

impl Programs {
    /// Looks beside this program's own file.
    pub(super) fn find() -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::start("cannot tell where this program is", error))?;
        let directory = own.parent().unwrap_or(Path::new("")).to_owned();
        let programs = Self { own, directory };
        let missing = |name: &&&str| !programs.path(name).is_file();
        let missing: Vec<&str> =
            SERVING.iter().chain([&PUBLISHER]).filter(missing).copied().collect();
        if missing.is_empty() {
            return Ok(programs);
        }
        let (names, directory) = (missing.join(", "), &programs.directory);
        let message =
            format!("{directory:?} lacks {names}; `make demo` or `cargo build` makes them");
        Err(Failure::new(Reason::Start, message))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// All processes of a run. What still runs when it is dropped is killed.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    processes: Vec<Process>,
}

/// How processes that were asked to end went.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that had to be killed.
    pub(super) killed: Vec<&'static str>,
}

impl Fleet {
    /// Starts a program with `--config` and more arguments; what it prints goes to its log.
    ///
    /// It leads a process group of its own, so that a Ctrl-C reaches this process alone, which
    /// then ends the others in good order.
    pub(super) fn start(
        &mut self,
        programs: &Programs,
        place: &Place,
        name: &'static str,
        arguments: &[String],
    ) -> Result<(), Failure> {
        let log = place.log(name);
        let file = fs::File::create(&log).map_err(|error| unwritable(&log, error))?;
        let both = file.try_clone().map_err(|error| unwritable(&log, error))?;
        let child = attached::command(&programs.own, &programs.path(name))
            .arg("--config")
            .arg(&place.config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::start(format!("cannot start {name}"), error))?;
        self.processes.push(Process { name, child, log, status: None });
        Ok(())
    }

    /// Whether the publisher is done; fails where it failed or another process has ended.
    pub(super) fn is_all_published(&mut self) -> Result<bool, Failure> {
        let mut published = false;
        for process in &mut self.processes {
            let Some(status) = process.poll()? else { continue };
            if process.name != PUBLISHER || !status.success() {
                return Err(process.ended_early(status));
            }
            published = true;
        }
        Ok(published)
    }

    /// Asks all to end and waits until they have. A signal in the meantime kills those that
    /// are left, as the end of the grace period does.
    pub(super) async fn stop(&mut self, signals: &mut Signals) -> Ended {
        let until = Instant::now() + GRACE;
        for process in &mut self.processes {
            process.signal(Signal::TERM);
        }
        while self.is_running() && Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = signals.next() => break,
            }
        }
        self.kill()
    }

    fn is_running(&mut self) -> bool {
        let mut running = self.processes.iter_mut().map(Process::is_running);
        running.any(|running| running)
    }

    fn kill(&mut self) -> Ended {
        let mut ended = Ended::default();
        for process in self.processes.iter_mut().filter_map(|p| p.is_running().then_some(p)) {
            process.signal(Signal::KILL);
            process.status = process.child.wait().ok();
            ended.killed.push(process.name);
        }
        ended
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    fn poll(&mut self) -> Result<Option<ExitStatus>, Failure> {
        if self.status.is_none() {
            let lost = |error| Failure::start(format!("cannot watch {}", self.name), error);
            self.status = self.child.try_wait().map_err(lost)?;
        }
        Ok(self.status)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.poll(), Ok(None))
    }

    /// Sends a signal to a process that has not been waited for: its id is still its own.
    fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // It may have ended just now, which is what the signal wants.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    fn ended_early(&self, status: ExitStatus) -> Failure {
        let (name, log) = (self.name, &self.log);
        let text = fs::read(log).unwrap_or_default();
        let tail = tail(&String::from_utf8_lossy(&text), LOG_LINES);
        let message = format!("{name} ended early ({status}); the end of {}:{tail}", log.display());
        Failure::new(reason(status), message)
    }
}

/// The reason that a process had, as its exit code tells.
fn reason(status: ExitStatus) -> Reason {
    let known = [
        Reason::Config,
        Reason::Start,
        Reason::Broker,
        Reason::StorageFull,
        Reason::Input,
        Reason::Grace,
    ];
    let same = |reason: &&Reason| Some(**reason as i32) == status.code();
    known.iter().find(same).copied().unwrap_or(Reason::Unexpected)
}

/// The last lines of a log, each on a line of its own and indented.
fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(lines_max)..];
    if last.is_empty() {
        return " (it is empty)".to_owned();
    }
    last.iter().map(|line| format!("\n    {}", crate::escape::text(line))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_failure_has_the_reason_of_the_process_that_failed() {
        assert_eq!(reason(ExitStatus::from_raw(4 << 8)), Reason::Start);
        assert_eq!(reason(ExitStatus::from_raw(6 << 8)), Reason::StorageFull);
        for other in [0, 2 << 8, 101 << 8, 9] {
            assert_eq!(reason(ExitStatus::from_raw(other)), Reason::Unexpected);
        }
    }

    #[test]
    fn the_end_of_a_log_is_shown_escaped() {
        assert_eq!(tail("a\nb\nc\u{1b}[1m\n", 2), "\n    b\n    c\\u{1b}[1m");
        assert_eq!(tail("", 2), " (it is empty)");
    }
}
