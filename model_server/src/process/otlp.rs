//! Exports spans to an OTLP collector: protobuf over HTTP, from a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::failure::{Failure, Reason};

/// Where collectors take spans, below their address.
const PATH: &str = "/v1/traces";
/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take at the end of the program.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Gathers spans and sends them on, until it is finished.
#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Begins to send to the collector at `endpoint`. Does no I/O of its own.
    pub(super) fn start(endpoint: &str, program: String) -> Result<Self, Failure> {
        let address = format!("{}{PATH}", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(address)
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(Client::new(endpoint))
            .build()
            .map_err(|error| {
                let message = format!("spans cannot be exported to {endpoint}");
                Failure::new(Reason::Config, message).because(error)
            })?;
        let resource = Resource::builder().with_service_name(program).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            // Its queue is bounded: what a collector is too slow for is dropped.
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }

    /// What a subscriber needs to export its spans.
    pub(super) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("forebay"))
    }

    /// Sends what is left.
    pub(super) fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FINISH_TIMEOUT) {
            tracing::warn!(%error, "the last spans are not exported");
        }
    }
}

/// HTTP as the exporter's own thread may do it: blocking.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    endpoint: String,
    /// The last export failed, and that was said.
    failing: AtomicBool,
}

impl Client {
    fn new(endpoint: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(EXPORT_TIMEOUT))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            endpoint: endpoint.to_owned(),
            failing: AtomicBool::new(false),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let response = self.agent.run(request.map(|body| body.to_vec()))?;
        let (head, mut body) = response.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }

    /// Says so once when it begins to fail, and once when it works again.
    fn note(&self, problem: Option<String>) {
        let was_failing = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match problem {
            Some(problem) if !was_failing => {
                tracing::warn!(endpoint, problem, "spans are not exported");
            }
            None if was_failing => tracing::info!(endpoint, "spans are exported again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let refusal = |status: u16| format!("the collector answers with status {status}");
        self.note(match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(refusal(response.status().as_u16())),
            Err(error) => Some(error.to_string()),
        });
        Ok(answer?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc;

    use broker::layers::{self, trace};
    use broker::{
        BrokerExt, Consumer, Delivery, Limit, Message, Outcome, Policy, Subscription, Topic,
        TopicSpec,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message as _;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A collector that hands on what it is sent, until nobody listens.
    fn collector(status: &'static str) -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let request = read(&socket.unwrap(), status);
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        (address, received)
    }

    fn read(socket: &TcpStream, status: &str) -> ExportTraceServiceRequest {
        let mut reader = BufReader::new(socket);
        let (mut length, mut line) = (0, String::new());
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let header = line.to_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if let Some(value) = header.strip_prefix("content-type:") {
                assert_eq!(value.trim(), "application/x-protobuf");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        (&*socket).write_all(answer.as_bytes()).unwrap();
        ExportTraceServiceRequest::decode(body.as_slice()).unwrap()
    }

    fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.extend(consumer.receive(Limit::new(count, PATIENCE)).await.unwrap());
        }
        deliveries
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a program does that answers one message with another, and one that reads answers.
    async fn play(directory: &std::path::Path) -> (Delivery, Vec<Delivery>) {
        let bare = broker::embedded::open(broker::embedded::Config::new(directory)).await.unwrap();
        let trace = trace::Config { start: true, ..trace::Config::default() };
        let config = layers::Config { trace, ..layers::Config::default() };
        let broker = config.wrap(bare, Policy::default());
        let [images, predictions] = ["images", "predictions"].map(|name| Topic::new(name).unwrap());
        for topic in [&images, &predictions] {
            broker.ensure_topic(&TopicSpec::new(topic, 1)).await.unwrap();
        }
        broker.publish_one(&images, Message::new("image")).await.unwrap();
        let group = broker::Group::new("group").unwrap();
        let mut member = broker.subscribe(Subscription::group(&images, &group)).await.unwrap();
        let image = receive(member.as_mut(), 1).await.remove(0);
        let mut answer = Message::new("prediction");
        trace::carry(&image, &mut answer);
        let work = tracing::info_span!("predict");
        trace::follow(&work, &image);
        work.in_scope(|| tracing::info!("it is a cat"));
        drop(work);
        broker.publish_one(&predictions, answer).await.unwrap();
        broker.publish_one(&predictions, Message::new("of another trace")).await.unwrap();
        let reader = Subscription::reader(&predictions);
        let mut reader = broker.subscribe(reader).await.unwrap();
        let answers = receive(reader.as_mut(), 2).await;
        let unsettled = member.settle(vec![(image.into_token(), Outcome::Ack)]).await;
        assert!(unsettled.is_empty());
        let images = broker.subscribe(Subscription::reader(&images)).await;
        let image = receive(images.unwrap().as_mut(), 1).await.remove(0);
        (image, answers)
    }

    fn named<'a>(spans: &'a [Span], name: &'a str) -> impl Iterator<Item = &'a Span> {
        spans.iter().filter(move |span| span.name == name)
    }

    #[tokio::test]
    async fn one_trace_reaches_the_collector_from_publisher_to_reader() {
        let (address, received) = collector("200 OK");
        let exporter = Exporter::start(&format!("http://{address}/"), "test".to_owned()).unwrap();
        let wanted = tracing_subscriber::filter::Targets::new()
            .with_default(tracing::Level::INFO)
            .with_target("broker", tracing::Level::DEBUG);
        let layer = tracing_subscriber::Layer::with_filter(exporter.layer(), wanted);
        let subscriber = tracing_subscriber::registry().with(layer);
        let guard = tracing::subscriber::set_default(subscriber);
        let directory = tempfile::tempdir().unwrap();
        let (image, answers) = play(directory.path()).await;
        drop(guard);
        tokio::task::spawn_blocking(move || exporter.finish()).await.unwrap();
        let request = received.recv_timeout(PATIENCE).unwrap();
        let shown = format!("{request:?}");
        assert!(shown.contains("service.name") && shown.contains("\"test\""), "{shown}");
        let spans = spans(request);

        // The publisher's span begins the trace that the message carries.
        let begun = trace::Context::of(&image).expect("a context");
        let publish = named(&spans, "publish").next().unwrap();
        assert_eq!(hexadecimal(&publish.trace_id), begun.trace_id());
        assert!(begun.to_string().contains(&hexadecimal(&publish.span_id)), "{begun}");
        // All that is done with the message continues it.
        for name in ["receive", "predict", "settle"] {
            let span = named(&spans, name).next().unwrap();
            assert_eq!(span.trace_id, publish.trace_id, "{name}");
            assert_eq!(span.parent_span_id, publish.span_id, "{name}");
        }
        let answer = named(&spans, "publish").nth(1).unwrap();
        assert_eq!(answer.trace_id, publish.trace_id);
        assert_eq!(answer.parent_span_id, publish.span_id);
        let carried = trace::Context::of(&answers[0]).expect("a context").to_string();
        assert!(carried.contains(&hexadecimal(&answer.span_id)), "{carried}");
        // A batch of two traces belongs to neither and is linked to both.
        let other = named(&spans, "publish").nth(2).unwrap();
        assert_ne!(other.trace_id, publish.trace_id);
        let both = named(&spans, "receive").find(|span| !span.links.is_empty()).unwrap();
        let links: Vec<_> = both.links.iter().map(|link| link.trace_id.clone()).collect();
        assert_eq!(links, [publish.trace_id.clone(), other.trace_id.clone()]);
    }

    #[tokio::test]
    async fn a_collector_that_refuses_or_is_gone_hurts_nothing() {
        let (address, received) = collector("400 Bad Request");
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for address in [address, gone] {
            let exporter = Exporter::start(&format!("http://{address}"), "test".into()).unwrap();
            let subscriber = tracing_subscriber::registry().with(exporter.layer());
            tracing::subscriber::with_default(subscriber, || drop(tracing::info_span!("work")));
            tokio::task::spawn_blocking(move || exporter.finish()).await.unwrap();
        }
        assert_eq!(spans(received.recv_timeout(PATIENCE).unwrap()).len(), 1);
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_a_wrong_configuration() {
        let failure = Exporter::start("http://[", "test".to_owned()).unwrap_err();
        assert_eq!(failure.reason(), Reason::Config);
        assert!(failure.to_string().contains("http://["), "{failure}");
    }
}
