//! app1 against a real embedded broker in a directory of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are no tests to Clippy")]

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use app1::Options;
use broker::{Delivery, Event, Group, Limit, Outcome, Subscription};
use clap::Parser;
use model_server::process::{Failure, Reason, Shutdown};
use model_server::settings::Settings;
use tempfile::TempDir;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    /// A stage whose embedded broker has further settings.
    fn with(embedded: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ini = format!(
            "[broker]\nkind = embedded\n[embedded]\ndirectory = {}\ndurability = normal\n\
             {embedded}\n[topics]\npartitions = 3\n[model]\npath = none.onnx\n",
            directory.path().join("broker").display(),
        );
        std::fs::write(directory.path().join("forebay.ini"), ini).unwrap();
        Self { directory }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("forebay.ini")
    }

    fn settings(&self) -> Settings {
        Settings::read(&self.config(), &HashMap::new()).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn app1(&self, arguments: &[&str]) -> Result<(), Failure> {
        app1::run(&self.settings(), options(arguments), Shutdown::manual().1).await
    }

    /// Everything in the images topic, each partition in its order.
    async fn published(&self) -> Vec<Delivery> {
        let settings = self.settings();
        let broker = settings.connect().await.unwrap();
        let reader = Subscription::reader(&settings.topics.images);
        let mut consumer = broker.subscribe(reader).await.unwrap();
        let mut all = Vec::new();
        loop {
            all.extend(consumer.receive(Limit::new(1000, Duration::from_secs(1))).await.unwrap());
            if consumer.events().contains(&Event::CaughtUp) {
                return all;
            }
        }
    }

    /// Runs the program itself.
    fn program(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_app1"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that ends early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }
}

fn options(arguments: &[&str]) -> Options {
    Arguments::parse_from(["app1"].iter().chain(arguments)).options
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    delivery.headers.get_str(name).map(str::to_owned)
}

/// The deliveries by the index in their ids, of which each occurs once.
fn by_index(run_id: &str, deliveries: Vec<Delivery>) -> BTreeMap<u64, Delivery> {
    let mut found = BTreeMap::new();
    for delivery in deliveries {
        let id = header(&delivery, "id").unwrap();
        let digits = id.strip_prefix(&format!("{run_id}-")).unwrap();
        assert!(digits.len() >= 8, "{id}");
        assert!(found.insert(digits.parse().unwrap(), delivery).is_none(), "{id} twice");
    }
    found
}

/// An IDX file of `count` images, each of one grey.
fn images(count: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
    bytes.extend((0..count).flat_map(|image| [image; 784]));
    bytes
}

#[tokio::test]
async fn messages_have_id_key_type_and_truth_and_keep_the_order_of_their_key() {
    let stage = Stage::new();
    let idx = stage.write("t-images-idx3", &images(100));
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 100];
    labels.extend((0..100).map(|image| image % 10));
    stage.write("t-labels-idx1", &labels);
    let text = stage.write("notes.txt", b"no image");
    let arguments =
        ["--samples", "20", "--run-id", "run", "--keys", "5", "--batch", "7", &idx, &text];
    stage.app1(&arguments).await.unwrap();
    let published = stage.published().await;
    let mut last = HashMap::new();
    for delivery in &published {
        let id = header(delivery, "id").unwrap();
        let before = last.insert(delivery.key.clone(), id.clone());
        assert!(before.is_none_or(|before| before < id));
    }
    assert_eq!(last.len(), 5);
    let found = by_index("run", published);
    assert!(found.keys().copied().eq(0..121));
    for (index, delivery) in &found {
        assert_eq!(delivery.key.as_deref(), Some(format!("key-{}", index % 5).as_bytes()));
    }
    let sample = modelling::samples::draw(1, 3);
    assert_eq!(found[&3].payload, sample.bytes);
    assert_eq!(header(&found[&3], "label"), Some(sample.label.to_string()));
    assert_eq!(header(&found[&3], "content-type").as_deref(), Some(sample.content_type));
    assert_eq!(found[&57].payload, vec![37; 784]);
    assert_eq!(header(&found[&57], "label").as_deref(), Some("7"));
    assert_eq!(header(&found[&57], "content-type").as_deref(), Some("application/octet-stream"));
    assert_eq!(&found[&120].payload[..], b"no image");
    assert_eq!(header(&found[&120], "file-name").as_deref(), Some("notes.txt"));
    assert_eq!(header(&found[&120], "label"), None);
}

#[tokio::test]
async fn a_resumed_run_goes_on_with_the_same_ids() {
    let stage = Stage::new();
    let progress = stage.directory.path().join("progress").to_str().unwrap().to_owned();
    let idx = stage.write("idx", &images(50));
    let arguments = ["--resume", &progress, "--batch", "8", &idx];
    stage.app1(&[&arguments[..], &["--count", "20"]].concat()).await.unwrap();
    let first = std::fs::read_to_string(&progress).unwrap();
    let run_id = first.split('"').nth(3).unwrap().to_owned();
    assert!(by_index(&run_id, stage.published().await).keys().copied().eq(0..20));
    stage.app1(&arguments).await.unwrap();
    assert!(by_index(&run_id, stage.published().await).keys().copied().eq(0..50));
    stage.app1(&arguments).await.unwrap();
    assert_eq!(stage.published().await.len(), 50);
    // What was published but not remembered before a crash comes again with the same ids.
    std::fs::write(&progress, first).unwrap();
    stage.app1(&arguments).await.unwrap();
    let mut ids: Vec<_> = stage.published().await.iter().map(|d| header(d, "id")).collect();
    assert_eq!(ids.len(), 80);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[tokio::test]
async fn a_file_over_the_limit_is_skipped_and_told_while_the_rest_is_published() {
    let stage = Stage::with("message.max.bytes = 1KiB");
    for (name, size) in [("d/a.png", 10), ("d/b.png", 2000), ("d/c.png", 900), ("d/e.png", 1020)] {
        stage.write(name, &vec![7; size]);
    }
    let directory = stage.directory.path().join("d");
    let output = stage.program(&["--run-id", "r", directory.to_str().unwrap()], b"");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{told}");
    // The last one fits as a payload, and with its key and headers does not.
    assert!(told.contains("b.png") && told.contains("2000 bytes"), "{told}");
    assert!(told.contains("e.png") && told.contains("not published: 2"), "{told}");
    let found = by_index("r", stage.published().await);
    assert!(found.keys().copied().eq([0, 2]));
}

#[tokio::test]
async fn a_loop_goes_round_until_the_count() {
    let stage = Stage::new();
    let idx = stage.write("idx", &images(3));
    stage.app1(&["--loop", "--count", "10", "--run-id", "r", &idx]).await.unwrap();
    let found = by_index("r", stage.published().await);
    let greys: Vec<_> = found.values().map(|delivery| delivery.payload[0]).collect();
    assert_eq!(greys, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
}

#[tokio::test]
async fn a_loop_of_which_nothing_can_be_published_ends() {
    let stage = Stage::with("message.max.bytes = 1KiB");
    let path = stage.write("large", &[0; 2000]);
    let failure = stage.app1(&["--loop", &path]).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::Input);
}

#[tokio::test]
async fn asked_to_end_it_ends_behind_the_batch_that_it_is_in() {
    let stage = Stage::new();
    let progress = stage.directory.path().join("progress").to_str().unwrap().to_owned();
    let idx = stage.write("idx", &images(3));
    let (ask, shutdown) = Shutdown::manual();
    let (settings, arguments) =
        (stage.settings(), ["--loop", "--rate", "400", "--resume", &progress, &idx]);
    let options = options(&arguments);
    let run = tokio::spawn(async move { app1::run(&settings, options, shutdown).await });
    while stage.published().await.len() < 60 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask.send_replace(true);
    run.await.unwrap().unwrap();
    // All that was published is remembered.
    let next = format!("\"next\":{}}}", stage.published().await.len());
    let remembered = std::fs::read_to_string(&progress).unwrap();
    assert!(remembered.ends_with(&next), "{remembered}, expected {next}");
}

#[tokio::test]
async fn a_full_topic_is_waited_for_and_nothing_is_lost_or_out_of_order() {
    // The three partitions hold less than this until retention makes room.
    const COUNT: u64 = 600;
    let stage = Stage::with("retention.bytes = 64KiB");
    let idx = stage.write("idx", &images(200));
    let settings = stage.settings();
    let broker = settings.connect().await.unwrap();
    let group = Subscription::group(&settings.topics.images, &Group::new("slow").unwrap());
    let mut consumer = broker.subscribe(group).await.unwrap();
    let count = COUNT.to_string();
    let options = options(&["--loop", "--count", &count, "--run-id", "r", "--batch", "50", &idx]);
    let run =
        tokio::spawn(async move { app1::run(&settings, options, Shutdown::manual().1).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!run.is_finished(), "the topic never got full");
    let begun = Instant::now();
    let mut last = HashMap::new();
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < COUNT as usize {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {COUNT} came", ids.len());
        let deliveries = consumer.receive(Limit::new(20, Duration::from_secs(1))).await.unwrap();
        consumer.events();
        for delivery in &deliveries {
            let id = header(delivery, "id").unwrap();
            // What is published again may repeat; what is new comes in order.
            if ids.insert(id.clone()) {
                let before = last.insert(delivery.key.clone(), id.clone());
                assert!(before.is_none_or(|before| before < id));
            }
        }
        let done = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        assert!(consumer.settle(done).await.is_empty());
    }
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn standard_input_is_an_idx_file_or_one_image_or_a_list_of_files() {
    let stage = Stage::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&images(90)).unwrap();
    let png = stage.write("one.png", b"png");
    let list = format!("{png}\n{png}\n");
    let inputs: [(&[&str], &[u8], usize); 4] = [
        (&["-"], &images(90), 90),
        (&["-"], &packed.finish().unwrap(), 90),
        (&["-"], b"anything", 1),
        (&["--files-from", "-"], list.as_bytes(), 2),
    ];
    let mut count = 0;
    for (arguments, input, expected) in inputs {
        let output = stage.program(arguments, input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let total = stage.published().await.len();
        assert_eq!(total - count, expected);
        count = total;
    }
    let output = stage.program(&["-"], &images(90)[..5000]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("cannot use standard input: it ends after"), "{told}");
}

#[test]
fn without_anything_to_publish_it_says_so() {
    let stage = Stage::new();
    let check = |arguments: &[&str], code, part: &str| {
        let output = stage.program(arguments, b"");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(part), "{told}");
    };
    check(&[], 2, "<SOURCE|--files-from <FILE>|--samples <N>>");
    check(&["--files-from", "-"], 7, "the sources name nothing to publish");
    check(&["no/where"], 7, "cannot read \"no/where\"");
    check(&["--samples", "1", "--run-id", "a b"], 2, "without spaces");
    assert!(!Path::new(&stage.directory.path().join("broker")).exists());
}
