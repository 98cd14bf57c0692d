//! What happens to messages while the registry is away: nothing.

use std::time::Duration;

use broker::codec::Codec;
use broker::codec::confluent::{Avro, Config, Credentials, Registry};
use broker::{ErrorKind, Failure, Message};

use super::proxy::Proxy;
use super::*;

fn impatient(proxy: &Proxy) -> Registry {
    let patience = Duration::from_millis(500);
    Registry::new(Config { patience, ..Config::new(&proxy.url) }).unwrap()
}

/// A message whose schema is in the registry, written over another line.
async fn message(url: &str) -> Message {
    let codec = Avro::new(&registry(url), ORDER_AVRO).unwrap();
    codec.encode(&topic("outage"), &order()).await.unwrap()
}

#[tokio::test]
async fn an_outage_rejects_nothing_and_does_not_touch_what_is_known() {
    let Some(url) = registry_url() else { return };
    let (proxy, message) = (Proxy::to(&url).await, message(&url).await);
    let codec = Avro::new(&impatient(&proxy), ORDER_AVRO).unwrap();
    proxy.cut();
    let error = message.decode::<Order>(&codec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(Failure::from(error).is_retryable());
    let error = codec.encode(&topic("outage"), &order()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("outage-"), "{error}");

    proxy.mend();
    assert_eq!(message.decode::<Order>(&codec).await.unwrap(), order());
    let known = topic("outage");
    let encoded = codec.encode(&known, &order()).await.unwrap();

    proxy.cut();
    assert_eq!(message.decode::<Order>(&codec).await.unwrap(), order());
    assert_eq!(codec.encode(&known, &order()).await.unwrap(), encoded);
}

#[tokio::test]
async fn a_short_outage_is_waited_for() {
    let Some(url) = registry_url() else { return };
    let (proxy, message) = (Proxy::to(&url).await, message(&url).await);
    let patience = Duration::from_secs(60);
    let registry = Registry::new(Config { patience, ..Config::new(&proxy.url) }).unwrap();
    let codec = Avro::new(&registry, ORDER_AVRO).unwrap();
    proxy.cut();
    let mend = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.mend();
    };
    let (decoded, ()) = tokio::join!(message.decode::<Order>(&codec), mend);
    assert_eq!(decoded.unwrap(), order());
}

#[tokio::test]
async fn many_who_need_one_schema_ask_for_it_once() {
    let Some(url) = registry_url() else { return };
    let (proxy, message) = (Proxy::to(&url).await, message(&url).await);
    let codec = Avro::new(&registry(&proxy.url), ORDER_AVRO).unwrap();
    let decoded = (0..100).map(|_| message.decode::<Order>(&codec));
    for decoded in futures::future::join_all(decoded).await {
        assert_eq!(decoded.unwrap(), order());
    }
    assert_eq!(proxy.count("GET /apis/ccompat/v7/schemas/ids/"), 1, "{}", proxy.heard());

    let (topic, order) = (topic("once"), order());
    let encoded = (0..100).map(|_| codec.encode(&topic, &order));
    for encoded in futures::future::join_all(encoded).await {
        encoded.unwrap();
    }
    assert_eq!(proxy.count("POST /apis/ccompat/v7/subjects/once-"), 1, "{}", proxy.heard());
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let Some(url) = registry_url() else { return };
    let (user, password) = ("ada".to_owned(), "secret".to_owned());
    let cases = [
        (Credentials::Basic { user, password }, "Basic YWRhOnNlY3JldA=="),
        (Credentials::Bearer("secret".into()), "Bearer secret"),
    ];
    for (credentials, header) in cases {
        let proxy = Proxy::to(&url).await;
        let config = Config { credentials, ..Config::new(&proxy.url) };
        assert!(!format!("{config:?}").contains("secret"));
        let registry = Registry::new(config).unwrap();
        assert!(!format!("{registry:?}").contains("secret"));
        let error = registry.latest("a/subject that is not there").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        let heard = proxy.heard();
        assert!(heard.contains(&format!("authorization: {header}\r\n")), "{heard}");
        assert!(heard.contains("/subjects/a%2Fsubject%20that%20is%20not%20there/"), "{heard}");
    }
}
