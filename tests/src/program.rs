//! Programs as processes.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::waiting::wait_until;

/// How much of a program's log a failed test shows, in bytes.
const LOG_SHOWN: usize = 4000;

/// A command for one of our programs, in an environment without our own variables.
///
/// # Panics
/// Where the program was not built.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program));
    for name in ["FOREBAY_CONFIG", "FOREBAY_DIRECTORY", "FOREBAY_DATA", "FOREBAY_LOG"] {
        command.env_remove(name);
    }
    command
}

/// The program beside the target directory's `deps`, where the tests are.
fn find(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join(program);
    let profile = profile.display();
    assert!(path.is_file(), "{program} is not in {profile}: run `cargo build` first");
    path
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts a command, with its output in files `NAME.out` and `NAME.log` of a directory;
    /// earlier output of the same name is kept.
    pub fn start(mut command: Command, name: &str, directory: &Path) -> Self {
        let open = |path: &Path| {
            File::options().create(true).append(true).open(path).map(Stdio::from).unwrap()
        };
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.log"));
        command.stdin(Stdio::null()).stdout(open(&stdout)).stderr(open(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), child, ended: None, stdout, stderr }
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless the process ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).unwrap();
        }
    }

    /// Kills the process as a power loss would; tells whether that is what ended it.
    pub fn kill(&mut self) -> bool {
        self.signal(Signal::KILL);
        self.wait().signal() == Some(Signal::KILL.as_raw())
    }

    /// Asks the process to end by SIGTERM, and waits until it did.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_until(&what, || self.ended())
    }

    /// Fails where the process ended by itself.
    pub fn check_alive(&mut self) {
        let ended = self.ended();
        assert!(ended.is_none(), "{} ended: {ended:?}", self.name);
    }

    /// Everything that programs of this name wrote to standard error.
    pub fn log(&self) -> String {
        read(&self.stderr)
    }

    /// Everything that programs of this name wrote to standard output.
    pub fn output(&self) -> String {
        read(&self.stdout)
    }

    /// The most memory that the process ever held, in bytes.
    #[cfg(target_os = "linux")]
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes << 10
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may be stopped or hang: it is not asked. There is nobody to tell of failures.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_SHOWN));
            eprintln!("--- end of the log of {} ---\n{}", self.name, &log[start..]);
        }
    }
}
