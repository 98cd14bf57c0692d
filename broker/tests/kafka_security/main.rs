//! Kafka behind TLS, SASL and access rules: what is right works, and what is wrong is told.
//!
//! `FOREBAY_TEST_KAFKA_SECURE` names the server's folder, of which `scripts/lib/kafka_secure.sh`
//! says what it holds. Without it the tests say so and pass; with `FOREBAY_REQUIRE_SERVERS` set,
//! as `make test` does, they fail.
#![allow(clippy::unwrap_used, reason = "a harness that can't be set up fails its test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use broker::config::{File, ProcessEnvironment};
use broker::kafka::{Config, connect};
use broker::{
    Broker, BrokerExt, Error, ErrorKind, Event, Group, Limit, Message, Outcome, Start,
    Subscription, Topic, TopicSpec,
};

/// How long `connect` may take in these tests.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// The server's folder.
struct Server(PathBuf);

impl Server {
    fn found() -> Option<Self> {
        let Some(folder) = std::env::var_os("FOREBAY_TEST_KAFKA_SECURE") else {
            let missing =
                "FOREBAY_TEST_KAFKA_SECURE is not set: start a server with scripts/servers";
            assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
            eprintln!("not run: {missing}");
            return None;
        };
        Some(Self(folder.into()))
    }

    /// A section for one of the server's listeners, which trusts who signed its certificates.
    fn section(&self, listener: &str) -> String {
        let address = std::fs::read_to_string(self.0.join(listener)).unwrap();
        format!(
            "[kafka]\nbootstrap.servers = {}\nconnect_timeout = {}s\n{}",
            address.trim(),
            CONNECT_MAX.as_secs(),
            self.trusting("ca.pem")
        )
    }

    fn trusting(&self, authority: &str) -> String {
        format!("ssl.ca.location = {}\n", self.0.join(authority).display())
    }

    /// Mutual TLS as alice.
    fn mtls(&self) -> String {
        let (certificate, key) = (self.0.join("client.pem"), self.0.join("client.key"));
        format!(
            "{}security.protocol = SSL\nssl.certificate.location = {}\nssl.key.location = {}\n",
            self.section("mtls"),
            certificate.display(),
            key.display()
        )
    }

    fn sasl(&self, mechanism: &str, lines: &str) -> String {
        format!(
            "{}security.protocol = SASL_SSL\nsasl.mechanism = {mechanism}\n{lines}",
            self.section("sasl")
        )
    }

    fn plain(&self, user: &str, password: &str) -> String {
        self.sasl("PLAIN", &format!("sasl.username = {user}\nsasl.password = {password}\n"))
    }
}

async fn open(section: &str) -> Result<Arc<dyn Broker>, Error> {
    let file = File::parse(Path::new("kafka.ini"), section, &ProcessEnvironment).unwrap();
    connect(Config::from_section(&mut file.section("kafka")).unwrap()).await
}

fn unique(name: &str) -> String {
    format!("{name}-{:x}", broker::Timestamp::now().as_micros())
}

/// Makes a topic, publishes to it, consumes and settles in a transaction, and asks tools.
async fn assert_works(section: &str) {
    let broker = open(section).await.unwrap();
    let topic = Topic::new(&unique("secure")).unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
    broker.publish_one(&topic, Message::new("body")).await.unwrap();
    let group = Group::new(topic.as_str()).unwrap();
    let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut deliveries = Vec::new();
    while deliveries.is_empty() {
        assert!(Instant::now() < until, "nothing comes");
        deliveries = member.receive(Limit::new(1, Duration::from_secs(1))).await.unwrap();
    }
    let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    let mut transaction = member.transaction().await.unwrap();
    transaction.publish(&topic, vec![Message::new("result")]).await.unwrap();
    transaction.settle(outcomes).await.unwrap();
    transaction.commit().await.unwrap();
    let described = broker.admin().describe_group(&group).await.unwrap();
    assert_eq!(described.members.len(), 1, "{described:?}");
    let lag = broker.lag(&topic, &group).await.unwrap();
    assert_eq!(lag[0].committed, Some(1), "{lag:?}");
    broker.shutdown().await.unwrap();
}

/// Asserts that connecting fails in time, for good, and names the cause.
async fn assert_refused(section: &str, cause: &str) {
    let begun = Instant::now();
    let error = open(section).await.expect_err("the connection is refused");
    let shown = format!("{error:?}");
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::PermissionDenied, false),
        "{shown}"
    );
    assert!(shown.to_lowercase().contains(cause), "{cause:?} is not in {shown}");
    assert!(!shown.contains("-secret"), "{shown}");
    assert!(begun.elapsed() < CONNECT_MAX + Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_with_a_certificate_is_known_by_it() {
    let Some(server) = Server::found() else { return };
    assert_works(&server.mtls()).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let Some(server) = Server::found() else { return };
    assert_refused(&format!("{}security.protocol = SSL\n", server.section("mtls")), "certificate")
        .await;
}

#[tokio::test]
async fn plain_works_over_tls() {
    let Some(server) = Server::found() else { return };
    assert_works(&server.plain("alice", "alice-secret")).await;
}

#[tokio::test]
async fn scram_works_over_tls() {
    let Some(server) = Server::found() else { return };
    let lines = "sasl.username = alice\nsasl.password = alice-secret\n";
    assert_works(&server.sasl("SCRAM-SHA-512", lines)).await;
}

/// A token without a signature, as the server of the tests takes it.
fn unsigned_token(user: &str, lifetime: i64) -> String {
    let now = broker::Timestamp::now().as_micros() / 1_000_000;
    let claims =
        format!(r#"{{"sub":"{user}","iat":{},"exp":{}}}"#, now - 60, now.saturating_add(lifetime));
    format!(
        "{}.{}.",
        BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        BASE64_URL_SAFE_NO_PAD.encode(claims)
    )
}

fn oauth(server: &Server, folder: &Path, token: &str) -> String {
    let file = folder.join("token");
    std::fs::write(&file, token).unwrap();
    server.sasl("OAUTHBEARER", &format!("oauth_token_file = {}\n", file.display()))
}

#[tokio::test]
async fn a_token_from_a_file_works_over_tls() {
    let Some(server) = Server::found() else { return };
    let folder = tempfile::tempdir().unwrap();
    assert_works(&oauth(&server, folder.path(), &unsigned_token("alice", 3600))).await;
}

#[tokio::test]
async fn a_token_that_has_run_out_is_refused() {
    let Some(server) = Server::found() else { return };
    let folder = tempfile::tempdir().unwrap();
    let section = oauth(&server, folder.path(), &unsigned_token("alice", -50));
    assert_refused(&section, "invalid_token").await;
}

#[tokio::test]
async fn a_missing_token_is_refused_and_its_file_is_named() {
    let Some(server) = Server::found() else { return };
    let section = server.sasl("OAUTHBEARER", "oauth_token_file = no/such/file\n");
    assert_refused(&section, "no/such/file").await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let Some(server) = Server::found() else { return };
    assert_refused(&server.plain("alice", "bob-secret"), "authentication failed").await;
    let lines = "sasl.username = alice\nsasl.password = bob-secret\n";
    let section = server.sasl("SCRAM-SHA-512", lines);
    assert_refused(&section, "authentication failed").await;
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_refused() {
    let Some(server) = Server::found() else { return };
    let section = format!("{}security.protocol = SSL\n", server.section("expired"));
    assert_refused(&section, "has expired").await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let Some(server) = Server::found() else { return };
    let section = format!("{}security.protocol = SSL\n", server.section("elsewhere"));
    assert_refused(&section, "another host name").await;
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let Some(server) = Server::found() else { return };
    let section = server.plain("alice", "alice-secret");
    let section = section.replace(&server.trusting("ca.pem"), &server.trusting("other-ca.pem"));
    assert_refused(&section, "issuer is unknown").await;
}

#[tokio::test]
async fn a_user_without_rights_is_denied_each_use_of_a_topic() {
    let Some(server) = Server::found() else { return };
    let owner = open(&server.plain("alice", "alice-secret")).await.unwrap();
    let topic = Topic::new(&unique("private")).unwrap();
    owner.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
    let stranger = open(&server.plain("bob", "bob-secret")).await.unwrap();
    let group = Group::new(topic.as_str()).unwrap();
    let denied = [
        stranger.publish_one(&topic, Message::new("body")).await.err(),
        receive(&stranger, Subscription::group(&topic, &group)).await.err(),
        receive(&stranger, Subscription::reader(&topic)).await.err(),
        stranger.admin().create_topic(&TopicSpec::new(&topic, 1)).await.err(),
        stranger.admin().delete_topic(&topic).await.err(),
        stranger.admin().describe(&topic).await.err(),
        stranger.admin().resolve(&topic, Start::Earliest).await.err(),
        stranger.lag(&topic, &group).await.err(),
        stranger.admin().describe_group(&group).await.err(),
        stranger.admin().delete_group(&group).await.err(),
    ];
    for (place, error) in denied.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("call {place} succeeded"));
        let found = (error.kind(), error.is_retryable());
        assert_eq!(found, (ErrorKind::PermissionDenied, false), "call {place}: {error:?}");
    }
}

/// Subscribes and receives until something comes, be it an error.
async fn receive(
    broker: &Arc<dyn Broker>,
    subscription: Subscription,
) -> Result<Vec<Event>, Error> {
    let mut consumer = broker.subscribe(subscription).await?;
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if !consumer.receive(Limit::new(1, Duration::from_secs(1))).await?.is_empty() {
            break;
        }
    }
    Ok(consumer.events())
}
