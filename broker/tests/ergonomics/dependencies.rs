//! What a service compiles that stands outside of the workspace and depends on `broker` by path.

use std::collections::BTreeSet;
use std::path::Path;

use super::{cargo, output_of};

/// What every service gets.
const ALWAYS: [&str; 13] = [
    "async-trait",
    "base64",
    "bytes",
    "config",
    "fastrand",
    "futures",
    "rusqlite",
    "rustix",
    "serde",
    "serde_json",
    "strsim",
    "tokio",
    "tracing",
];

/// What only comes with a feature, wherever it stands in the tree. Ends of names are left out.
const HEAVY: [&str; 25] = [
    "apache-avro",
    "aws-lc",
    "axum",
    "datafusion",
    "fjall",
    "google-cloud",
    "hyper",
    "metrics",
    "mongodb",
    "native-tls",
    "openssl",
    "opentelemetry",
    "ort",
    "prost",
    "protox",
    "rdkafka",
    "redis",
    "reqwest",
    "rustls",
    "scylla",
    "tch",
    "tonic",
    "torch",
    "tower",
    "ureq",
];

/// How far the tree is looked at: below `broker` itself, and as far as it goes.
const DIRECT: u32 = 2;
const ALL: u32 = 1000;

/// The names of the crates below a service with such a feature of `broker`, up to a depth.
fn crates(feature: &str, depth: u32) -> BTreeSet<String> {
    let service = tempfile::tempdir().unwrap();
    let broker = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = format!(
        "[package]\nname = \"service\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nbroker = {{ path = {broker:?}, features = [{feature:?}] }}\n"
    );
    std::fs::write(service.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(service.path().join("src")).unwrap();
    std::fs::write(service.path().join("src/lib.rs"), "").unwrap();
    // The versions of the workspace, which are there without a network.
    let lock = broker.parent().unwrap().join("Cargo.lock");
    std::fs::copy(lock, service.path().join("Cargo.lock")).unwrap();
    let mut tree = cargo();
    tree.current_dir(service.path()).args(["tree", "--edges", "normal", "--prefix", "none"]);
    tree.args(["--format", "{p}", "--depth", &depth.to_string()]);
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let own = ["service".to_owned(), "broker".to_owned()];
    output_of(&mut tree).lines().filter_map(name).filter(|name| !own.contains(name)).collect()
}

/// Those of the crates that are heavy.
fn heavy(crates: &BTreeSet<String>) -> Vec<&str> {
    let is_heavy = |name: &&str| HEAVY.iter().any(|heavy| name.starts_with(heavy));
    crates.iter().map(String::as_str).filter(is_heavy).collect()
}

#[test]
fn a_service_with_only_kafka_compiles_kafka_and_nothing_else() {
    let direct = crates("kafka", DIRECT);
    let expected: BTreeSet<String> =
        ALWAYS.iter().chain(&["rdkafka"]).map(ToString::to_string).collect();
    assert_eq!(direct, expected);
    assert_eq!(heavy(&crates("kafka", ALL)), ["rdkafka", "rdkafka-sys"]);
}

#[test]
fn a_service_without_a_feature_compiles_no_client_at_all() {
    let direct = crates("default", DIRECT);
    assert_eq!(direct, ALWAYS.iter().map(ToString::to_string).collect());
    assert!(heavy(&crates("default", ALL)).is_empty());
}

#[test]
fn a_backend_brings_none_of_the_others() {
    let clients = [("kafka", "rdkafka"), ("pubsub", "google-cloud-pubsub"), ("redis", "redis")];
    for (feature, own) in clients {
        let crates = crates(feature, ALL);
        let brought: Vec<&str> =
            clients.iter().map(|(_, client)| *client).filter(|it| crates.contains(*it)).collect();
        assert_eq!(brought, [own], "with feature {feature:?}");
    }
}
