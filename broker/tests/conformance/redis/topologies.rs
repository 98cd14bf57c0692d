//! Clusters, sentinels and TLS, on servers that the tests start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::conformance::{Harness, RULES};
use broker::{
    Broker, BrokerExt, Consumer, Delivery, ErrorKind, Group, Limit, Message, Outcome, Subscription,
    Topic, TopicSpec,
};
use futures::StreamExt;
use redis::AsyncConnectionConfig;

use super::Redis;
use super::server::{Server, free_port};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many rules run side by side.
const RULES_AT_ONCE: usize = 12;

/// Three masters that share out the slots.
struct Cluster {
    nodes: Vec<Server>,
    prefix: String,
}

async fn ask(server: &Server, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let settings = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection_with_config(&settings).await;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connection.unwrap()).await
}

impl Cluster {
    async fn start(prefix: &str) -> Option<Self> {
        Redis::found()?;
        let bus = || free_port().to_string();
        let node = |_| {
            let enabled = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
            let bus = bus();
            Server::start(&[&enabled[..], &["--cluster-port", &bus]].concat())
        };
        let nodes: Vec<Server> = (0..3).map(node).collect();
        let shares = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (node, (first, last)) in nodes.iter().zip(shares) {
            ask(node, &["CLUSTER", "ADDSLOTSRANGE", first, last]).await.unwrap();
        }
        for node in &nodes[1..] {
            let bus = ask(node, &["CONFIG", "GET", "cluster-port"]).await.unwrap();
            let (_, bus): (String, String) = redis::from_redis_value(bus).unwrap();
            let port = node.port().to_string();
            ask(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await.unwrap();
        }
        let cluster = Self { nodes, prefix: prefix.to_owned() };
        cluster.wait_until_whole().await;
        Some(cluster)
    }

    async fn wait_until_whole(&self) {
        let start = Instant::now();
        for node in &self.nodes {
            loop {
                let info = ask(node, &["CLUSTER", "INFO"]).await.unwrap();
                let shown = format!("{info:?}");
                if shown.contains("cluster_state:ok") && shown.contains("cluster_known_nodes:3") {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "no cluster comes to be: {shown}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn redis(&self) -> Redis {
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        Redis { url: urls.join(","), prefix: self.prefix.clone() }
    }
}

#[async_trait]
impl Harness for Cluster {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.redis().broker().await
    }

    async fn restart_server(&self) {}

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        let key = format!("{}{{{}}}:members", self.prefix, subscription.topic);
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        let client = redis::cluster::ClusterClient::new(urls).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        let removed: i32 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
        assert_eq!(removed, 1, "the group has a member");
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

/// Plays rules side by side, and tells all that are broken.
async fn play(harness: &dyn Harness, which: impl Fn(&str) -> bool) {
    let rules = RULES.iter().filter(|rule| which(rule.group));
    let played = rules.map(|rule| async move {
        let outcome = rule.play(harness).await;
        outcome.err().map(|problem| format!("{rule:?}: {problem}"))
    });
    let played = futures::stream::iter(played).buffer_unordered(RULES_AT_ONCE);
    let broken: Vec<String> = played.filter_map(|outcome| async { outcome }).collect().await;
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What spans partitions of several nodes is one step only where a hash tag joins them.
fn needs_one_slot(group: &str) -> bool {
    matches!(group, "transactions" | "changelog")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_rules() {
    let Some(cluster) = Cluster::start("spread:").await else { return };
    play(&cluster, |group| !needs_one_slot(group)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_work_on_a_cluster_whose_keys_share_a_tag() {
    let Some(cluster) = Cluster::start("{one}:").await else { return };
    play(&cluster, needs_one_slot).await;
}

async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let start = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} came: {all:?}", all.len());
        let limit = Limit::new(count - all.len(), Duration::from_secs(1));
        all.extend(consumer.receive(limit).await.unwrap_or_default());
    }
    all
}

async fn make_topic(broker: &Arc<dyn Broker>, partitions: u32) -> Topic {
    let topic = Topic::new(&format!("topic-{:016x}", fastrand::u64(..))).unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, partitions)).await.unwrap();
    topic
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_over_several_nodes_is_unsupported() {
    let Some(cluster) = Cluster::start("spread:").await else { return };
    let broker = cluster.broker().await;
    let (source, results) = (make_topic(&broker, 1).await, make_topic(&broker, 16).await);
    broker.publish_one(&source, Message::new("body")).await.unwrap();
    let group = Group::new("group").unwrap();
    let mut member = broker.subscribe(Subscription::group(&source, &group)).await.unwrap();
    let deliveries = receive(&mut *member, 1).await;
    let mut transaction = member.transaction().await.unwrap();
    // Sixteen partitions are never all in the slot of one other.
    let keyed = (0..64).map(|key| Message::new("result").with_key(key.to_string()));
    transaction.publish(&results, keyed.collect()).await.unwrap();
    let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    transaction.settle(outcomes).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(receive(&mut *member, 1).await[0].attempt(), 2);
}

/// A process that tells of a master, and names another when it dies.
struct Sentinel {
    server: Server,
    _directory: tempfile::TempDir,
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n"
        );
        std::fs::write(&file, text).unwrap();
        let server = Server::start_with_file(&file, &["--sentinel"]);
        Self { server, _directory: directory }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_behind_sentinels_follows_the_master() {
    let Some(_) = Redis::found() else { return };
    let mut master = Server::start(&[]);
    let port = master.port().to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = Sentinel::start(master.port());
    let redis = Redis::at(sentinel.server.url());
    wait_until_known(&sentinel.server, &replica).await;
    let lines = "sentinel = main\ntimeout = 2s\n";
    let broker = redis.open(lines).await.unwrap();
    let safe = redis.open(&format!("{lines}durability = wait:1\n")).await.unwrap();
    let topic = make_topic(&broker, 1).await;
    publish(&safe, &topic, "before").await;
    master.kill();
    publish(&broker, &topic, "after").await;
    let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
    let first = receive(&mut *reader, 1).await;
    assert_eq!(&first[0].payload[..], b"before");
    // What may or may not be written is published again.
    while receive(&mut *reader, 1).await[0].payload != "after" {}
}

/// Until a sentinel knows a replica it has nobody to name.
async fn wait_until_known(sentinel: &Server, replica: &Server) {
    let start = Instant::now();
    loop {
        let known = ask(sentinel, &["SENTINEL", "REPLICAS", "main"]).await.unwrap();
        if format!("{known:?}").contains(&replica.port().to_string()) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the sentinel sees no replica");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Publishes until it is written.
async fn publish(broker: &Arc<dyn Broker>, topic: &Topic, text: &'static str) {
    let start = Instant::now();
    loop {
        let error = match broker.publish_one(topic, Message::new(text)).await {
            Ok(_) => return,
            Err(error) => error,
        };
        assert!(error.is_retryable() && start.elapsed() < PATIENCE, "{text}: {error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a certificate authority and a certificate for `name`, in files of a directory.
fn certify(directory: &Path, name: &str) {
    let run = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(directory).stderr(Stdio::null());
        assert!(command.status().expect("openssl can be started").success(), "openssl {words}");
    };
    let days = "-days 2 -nodes -newkey rsa:2048";
    run(&format!("req -x509 {days} -subj /CN=authority -keyout ca.key -out ca.pem"));
    let request = "req -new -nodes -newkey rsa:2048";
    run(&format!("{request} -subj /CN=server -keyout server.key -out server.csr"));
    std::fs::write(directory.join("names"), format!("subjectAltName={name}\n")).unwrap();
    let sign = "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial";
    run(&format!("{sign} -extfile names -out server.pem"));
}

/// A server that speaks TLS on a port of its own, with a certificate for `name`.
fn start_tls(directory: &Path, name: &str) -> (Server, Redis) {
    certify(directory, name);
    let (port, path) = (free_port(), |file: &str| directory.join(file).display().to_string());
    let server = Server::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "optional",
    ]);
    (server, Redis::at(format!("rediss://127.0.0.1:{port}/")))
}

#[tokio::test]
async fn a_certificate_is_checked_and_its_name_too() {
    let Some(_) = Redis::found() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (_server, redis) = start_tls(directory.path(), "IP:127.0.0.1");
    let ca = format!("tls.ca = {}\ntimeout = 5s\n", directory.path().join("ca.pem").display());
    let broker = redis.open(&ca).await.unwrap();
    let topic = make_topic(&broker, 1).await;
    broker.publish_one(&topic, Message::new("body")).await.unwrap();
    let refused = async |redis: &Redis, lines: &str| {
        let error = redis.open(lines).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!error.is_retryable() && format!("{error:?}").contains("certificate"), "{error:?}");
    };
    refused(&redis, "timeout = 5s\n").await;
    let other = tempfile::tempdir().unwrap();
    let (_server, redis) = start_tls(other.path(), "DNS:elsewhere.example");
    let ca = format!("tls.ca = {}\ntimeout = 5s\n", other.path().join("ca.pem").display());
    refused(&redis, &ca).await;
    let client = format!("tls.certificate = {0}\ntls.key = {0}\n", other.path().display());
    let error = redis.open(&client).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
}
