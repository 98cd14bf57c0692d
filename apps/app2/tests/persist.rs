//! app2 against a real embedded broker in a directory of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are no tests to Clippy")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use app2::report::Report;
use broker::{Broker, BrokerExt, Delivery, Event, Group, Limit, Message, Subscription};
use model_server::prediction::{Input, ModelRef, Outputs, Prediction, Source, Times};
use model_server::process::Shutdown;
use model_server::settings::Settings;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

struct Stage {
    directory: TempDir,
    settings: Settings,
    broker: Arc<dyn Broker>,
}

impl Stage {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let ini = format!(
            "[broker]\nkind = embedded\n[embedded]\ndirectory = {}\ndurability = normal\n\
             [model]\npath = none.onnx\n[app2]\ndatabase = {}\n",
            path.join("broker").display(),
            path.join("new/predictions.db").display(),
        );
        std::fs::write(path.join("forebay.ini"), ini).unwrap();
        let settings = Settings::read(&path.join("forebay.ini"), &HashMap::new()).unwrap();
        let broker = settings.connect().await.unwrap();
        Self { directory, settings, broker }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("forebay.ini")
    }

    async fn publish(&self, payloads: Vec<Vec<u8>>) {
        let batch = payloads
            .into_iter()
            .map(|payload| Message::new(payload).with_key("k").with_header("id", "h"))
            .collect();
        self.broker.publish_all(&self.settings.topics.predictions, batch).await.unwrap();
    }

    /// Runs app2 until it has settled everything, then asks it to end.
    async fn drain(&self) {
        let (ask, shutdown) = Shutdown::manual();
        let settings = self.settings.clone();
        let run = tokio::spawn(async move { app2::run(&settings, shutdown).await });
        let group = Group::new("app2").unwrap();
        let settled = async {
            loop {
                let lag = self.broker.lag(&self.settings.topics.predictions, &group).await.unwrap();
                if lag.iter().all(|partition| partition.behind == 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, settled).await.unwrap();
        ask.send_replace(true);
        tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap().unwrap();
    }

    async fn dead_letters(&self) -> Vec<Delivery> {
        let reader = Subscription::reader(&self.settings.topics.dead_letters);
        let mut consumer = self.broker.subscribe(reader).await.unwrap();
        let mut all = Vec::new();
        loop {
            all.extend(consumer.receive(Limit::new(100, Duration::from_secs(1))).await.unwrap());
            if consumer.events().contains(&Event::CaughtUp) {
                return all;
            }
        }
    }

    fn report(&self) -> Report {
        Report::read(&self.settings.database).unwrap()
    }

    fn program(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_app2"))
            .env_remove("FOREBAY_CONFIG")
            .args(arguments)
            .output()
            .unwrap()
    }
}

fn prediction(id: &str, input: &str) -> Vec<u8> {
    let prediction = Prediction {
        id: id.to_owned(),
        model: ModelRef { name: "cnn".into(), version: "1".into(), digest: "d".into() },
        source: Source { topic: "images".into(), partition: 0, offset: 0 },
        input: Input { digest: input.to_owned(), label: Some("3".into()), published_us: 1 },
        outputs: Outputs { label: "3".into(), probability: 1.0, probabilities: vec![1.0] },
        times: Times { queued_us: 1, computing_us: 1, total_us: 2 },
    };
    serde_json::to_vec(&prediction).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prediction_is_persisted_once_and_repeats_are_counted() {
    let stage = Stage::new().await;
    let all: Vec<_> = (0..1500).map(|id| prediction(&format!("{id}"), "i")).collect();
    stage.publish(all.clone()).await;
    stage.drain().await;
    let report = stage.report();
    assert_eq!((report.persisted, report.duplicates), (1500, 0));
    assert_eq!(report.accuracy, Some(1.0));
    // As after a crash between the commit and its settlement, also of another process.
    stage.publish(all[..700].to_vec()).await;
    stage.drain().await;
    let report = stage.report();
    assert_eq!((report.persisted, report.duplicates), (1500, 700));
    assert!(stage.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_and_foreign_payloads_are_put_aside_and_the_stream_goes_on() {
    let stage = Stage::new().await;
    let conflict = prediction("a", "another input");
    let text = b"{\"id\": \"b\"".to_vec();
    let batch =
        vec![prediction("a", "one input"), conflict.clone(), text.clone(), prediction("c", "i")];
    stage.publish(batch).await;
    stage.drain().await;
    assert_eq!((stage.report().persisted, stage.report().duplicates), (2, 0));
    let dead = stage.dead_letters().await;
    let expected = [
        (conflict, ["\"a\" of model \"cnn\"", "\"one input\"", "\"another input\""]),
        (text, ["no prediction", "EOF", "column"]),
    ];
    assert_eq!(dead.len(), expected.len());
    for (letter, (payload, parts)) in dead.iter().zip(expected) {
        assert_eq!(letter.payload, payload);
        assert_eq!(letter.headers.get_str("id"), Some("h"));
        let reason = letter.headers.get_str("dead-letter-reason").unwrap();
        for part in parts {
            assert!(reason.contains(part), "{reason}: no {part}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_printed_with_the_config_on_either_side() {
    let stage = Stage::new().await;
    let config = stage.config();
    let config = config.to_str().unwrap();
    let early = stage.program(&["report", "--config", config]);
    assert_eq!(early.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&early.stderr).contains("new/predictions.db"));
    stage.publish(vec![prediction("a", "i")]).await;
    stage.drain().await;
    let table = format!("{}\n", stage.report());
    for arguments in [["report", "--config", config], ["--config", config, "report"]] {
        let output = stage.program(&arguments);
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), table);
    }
    let output = stage.program(&["report", "--json", "--config", config]);
    let line = format!("{}\n", serde_json::to_string(&stage.report()).unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), line);
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["persisted"], 1);
    assert!(json["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    let without = stage.program(&["report"]);
    assert_eq!(without.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without.stderr).contains("--config"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_opened_ends_the_program_before_it_takes_anything() {
    let stage = Stage::new().await;
    std::fs::create_dir_all(&stage.settings.database).unwrap();
    stage.publish(vec![prediction("a", "i")]).await;
    let output = stage.program(&["--config", stage.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("predictions.db\" is a directory"), "{told}");
    std::fs::remove_dir(&stage.settings.database).unwrap();
    stage.drain().await;
    assert_eq!(stage.report().persisted, 1);
}
