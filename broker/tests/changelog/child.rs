//! This binary in another process, and what it does there.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker::config::File;
use broker::factory::Config;
use broker::{Broker, Policy};

use super::{counting, faults};

/// The variable that tells a process which role it has.
const ROLE: &str = "FOREBAY_TEST_ROLE";
/// The variable that holds what the role needs to know, as JSON.
const SETTINGS: &str = "FOREBAY_TEST_SETTINGS";

/// What a role needs to know, by name.
pub(crate) type Settings = HashMap<String, String>;

pub(crate) fn settings(rows: &[(&str, &str)]) -> Settings {
    rows.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// A process that ends with this one: it stops when its input is closed.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(role: &str, settings: &Settings) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child::plays_its_role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// SIGKILL: nothing is flushed and nobody is told.
    pub(crate) fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the process ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks the process to end, and waits for it.
    pub(crate) fn stop(mut self) {
        drop(self.0.stdin.take());
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        // The input stays open while the process works.
        let input = self.0.stdin.take();
        let status = self.0.wait().unwrap();
        drop(input);
        status
    }
}

/// Set once this process was asked to end.
pub(crate) fn stop_signal() -> Arc<AtomicBool> {
    let signal = Arc::new(AtomicBool::new(false));
    let asked = signal.clone();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // An error is an end too.
        let _ = std::io::stdin().read_to_end(&mut rest);
        asked.store(true, Ordering::Release);
    });
    signal
}

/// Connects by the text of an ini file.
pub(crate) async fn connect(ini: &str) -> Arc<dyn Broker> {
    let environment: HashMap<&str, &str> = HashMap::new();
    let file = File::parse(Path::new("test.ini"), ini, &environment).unwrap();
    let config = Config::from_file(&file).unwrap();
    file.finish().unwrap();
    config.connect(Policy::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_its_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let settings: Settings = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    match role.as_str() {
        "counter" => counting::run(&settings).await,
        "upgrader" => faults::upgrade(&settings).await,
        "victim" => faults::fall_victim(&settings).await,
        _ => panic!("there is no role {role:?}"),
    }
}
