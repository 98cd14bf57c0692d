//! Contexts pass through a broker, and are begun where that is asked for.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::config::File;
use crate::contract::TopicSpec;
use crate::embedded;
use crate::ext::BrokerExt;

fn parse(lines: &str) -> Result<Config> {
    let environment: HashMap<&str, &str> = HashMap::new();
    let file = File::parse(Path::new("t.ini"), &format!("[trace]\n{lines}"), &environment)?;
    Config::from_section(file.section("trace"))
}

/// An embedded broker under the layer, with a limit of 200 bytes and the topics `a` and `b`.
async fn stage(start: bool) -> (tempfile::TempDir, Arc<dyn Broker>, [Topic; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let config = embedded::Config::new(directory.path());
    let bare = embedded::open(embedded::Config { message_bytes_max: 200, ..config }).await.unwrap();
    let topics = ["a", "b"].map(|name| Topic::new(name).unwrap());
    for topic in &topics {
        bare.admin().create_topic(&TopicSpec::new(topic, 1)).await.unwrap();
    }
    let config = Config { start, ..Config::default() };
    (directory, Trace::wrap(bare, &config), topics)
}

async fn receive(broker: &Arc<dyn Broker>, topic: &Topic, count: usize) -> Vec<Delivery> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let limit = Limit::new(count, Duration::from_secs(60));
        deliveries.extend(reader.receive(limit).await.unwrap());
    }
    deliveries
}

#[tokio::test]
async fn one_trace_goes_from_publisher_to_consumer_over_two_topics() {
    let (_directory, broker, [images, predictions]) = stage(true).await;
    broker.publish_one(&images, Message::new("image")).await.unwrap();
    let image = receive(&broker, &images, 1).await.remove(0);
    let begun = Context::of(&image).expect("a trace is begun");
    let mut prediction = Message::new("prediction");
    carry(&image, &mut prediction);
    broker.publish_one(&predictions, prediction).await.unwrap();
    let prediction = receive(&broker, &predictions, 1).await.remove(0);
    assert_eq!(Context::of(&prediction).map(|context| context.trace), Some(begun.trace));
}

#[tokio::test]
async fn a_callers_context_goes_on_and_the_rest_of_its_batch_begins_one_trace() {
    let (_directory, broker, [topic, _]) = stage(true).await;
    let context = Context::root();
    let mut marked = Message::new("marked").with_header(TRACESTATE, "vendor=1");
    context.put_on(&mut marked);
    let batch = vec![Message::new("1"), marked.clone(), Message::new("2")];
    broker.publish_all(&topic, batch).await.unwrap();
    let received = receive(&broker, &topic, 3).await;
    let contexts: Vec<_> = received.iter().map(|d| Context::of(d).expect("a context")).collect();
    assert_eq!(received[1].headers, marked.headers);
    assert_eq!(contexts[0], contexts[2]);
    assert_ne!(contexts[0].trace, context.trace);
}

#[tokio::test]
async fn no_trace_is_begun_unasked() {
    let (_directory, broker, [topic, _]) = stage(false).await;
    broker.publish_one(&topic, Message::new("plain")).await.unwrap();
    assert!(receive(&broker, &topic, 1).await[0].headers.is_empty());
}

#[tokio::test]
async fn a_message_that_has_no_room_goes_without() {
    let (_directory, broker, [topic, _]) = stage(true).await;
    let sizes = [200, 200 - HEADER_BYTES, 201 - HEADER_BYTES];
    let batch = sizes.map(|size| Message::new(vec![7; size])).to_vec();
    broker.publish_all(&topic, batch).await.unwrap();
    let received = receive(&broker, &topic, 3).await;
    let marked: Vec<bool> = received.iter().map(|d| Context::of(d).is_some()).collect();
    assert_eq!(marked, [false, true, false]);
}

#[test]
fn traces_begin_by_themselves_where_they_are_exported() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert!(parse("otlp_endpoint = http://127.0.0.1:4318\n").unwrap().start);
    assert!(!parse("otlp_endpoint = http://127.0.0.1:4318\nstart = false\n").unwrap().start);
    let shown = parse("otlp_endpoint = 127.0.0.1:4318\n").unwrap_err().to_string();
    assert!(shown.contains("no address such as"), "{shown}");
}
