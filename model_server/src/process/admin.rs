//! The admin endpoint: Prometheus metrics and health over plain HTTP.
//!
//! `/metrics` shows what the broker layers count, with the lag of the groups that the program is
//! in; `/health/live` answers as long as the process does; `/health/ready` answers 200 only while
//! the program runs, is not draining, and the broker says that it is well.
//!
//! It binds to loopback; elsewhere it demands `[admin] insecure = true`, since it has no TLS and
//! asks for no password. On loopback it answers only to hosts of that name, so that a page in a
//! browser cannot read it by a name that points here.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use broker::layers::metrics::names;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::failure::{Failure, Reason};
use super::shutdown::{Served, Shutdown};

/// How often samples are put into their buckets where nobody asks.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the broker may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question for a group's lag may take.
const LAG_TIMEOUT: Duration = Duration::from_secs(2);
/// The lag is asked for no more often than this, however many ask for the metrics.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// What Prometheus expects of its text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every long-running program takes beside [`Common`](super::Common).
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdminArguments {
    /// Serve Prometheus metrics (/metrics) and health (/health/live, /health/ready) here
    #[arg(long, env = "FOREBAY_ADMIN_ADDRESS", value_name = "IP:PORT")]
    pub admin_address: Option<SocketAddr>,
}

/// The endpoint, as long as this lives.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Endpoint {
    metrics: PrometheusHandle,
    shutdown: Shutdown,
    /// When the lag was last asked for.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Admin {
    /// Begins to listen. Call it before the broker is connected: metrics are counted from then.
    pub async fn start(
        address: SocketAddr,
        insecure: bool,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        if !address.ip().is_loopback() && !insecure {
            let message = format!(
                "the admin endpoint has no TLS: {address} is not on loopback, which takes \
                 insecure = true in the section [admin]"
            );
            return Err(Failure::new(Reason::Config, message));
        }
        let metrics = recorder().map_err(|error| Failure::start("cannot count metrics", error))?;
        let cannot = |error| Failure::start(format!("cannot listen on {address}"), error);
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        tracing::info!(%address, "the admin endpoint listens");
        let endpoint = Endpoint { metrics, shutdown, asked: Arc::default() };
        let task = tokio::spawn(serve(listener, address, endpoint));
        Ok(Self { address, task })
    }

    /// Where it listens; the port is a real one also where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The process's recorder, which can be installed once.
fn recorder() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: std::sync::Mutex<Option<PrometheusHandle>> = std::sync::Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let mut builder = PrometheusBuilder::new();
    for (suffix, bounds) in names::BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)?;
    }
    let handle = builder.install_recorder()?;
    names::describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

async fn serve(listener: TcpListener, address: SocketAddr, endpoint: Endpoint) {
    let metrics = endpoint.metrics.clone();
    let mut router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(show_readiness))
        .with_state(endpoint);
    if address.ip().is_loopback() {
        router = router.layer(middleware::from_fn(only_local_names));
    }
    tokio::select! {
        ended = axum::serve(listener, router) => {
            if let Err(error) = ended {
                tracing::error!(%error, "the admin endpoint ended");
            }
        }
        () = keep_up(metrics) => {}
    }
}

/// Without it the samples of histograms would pile up until somebody asks.
async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

/// Answers only to `localhost` and to addresses: other names may belong to anybody.
async fn only_local_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_local_name) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "ask for localhost or an address\n").into_response()
}

fn is_local_name(host: &str) -> bool {
    let uri = format!("http://{host}/").parse::<Uri>().ok();
    let Some(name) = uri.as_ref().and_then(Uri::host) else { return false };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

async fn show_metrics(State(endpoint): State<Endpoint>) -> impl IntoResponse {
    endpoint.refresh_lag().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], endpoint.metrics.render())
}

async fn show_readiness(State(endpoint): State<Endpoint>) -> (StatusCode, String) {
    match endpoint.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

impl Endpoint {
    /// Why the program is not ready, if it is not.
    async fn readiness(&self) -> Result<(), String> {
        if self.shutdown.is_wanted() {
            return Err("draining".to_owned());
        }
        let served = self.shutdown.served().ok_or("starting")?;
        match timeout(HEALTH_TIMEOUT, served.broker.health()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the broker is not well: {}", error.kind().as_str())),
            Err(_) => Err(format!("the broker gave no answer within {HEALTH_TIMEOUT:?}")),
        }
    }

    /// Asks for the lag of the program's groups, which the metrics layer notes.
    async fn refresh_lag(&self) {
        let Some(Served { broker, groups }) = self.shutdown.served() else { return };
        let mut asked = self.asked.lock().await;
        let is_fresh = asked.is_some_and(|asked| asked.elapsed() < LAG_INTERVAL);
        if is_fresh || !broker.capabilities().lag {
            return;
        }
        for (topic, group) in groups {
            // The layer counts failures, and the metric keeps the last value that was told.
            if timeout(LAG_TIMEOUT, broker.lag(topic, group)).await.is_err() {
                tracing::debug!(%topic, %group, "the lag is not told in time");
            }
        }
        *asked = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use broker::{BrokerExt, Group, Message, Policy, Subscription, Topic, TopicSpec, layers};

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    /// The status and the body of a GET, asked on a plain socket.
    fn ask(address: SocketAddr, path: &str, host: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn get(admin: &Admin, path: &'static str) -> (u16, String) {
        let address = admin.address();
        tokio::task::spawn_blocking(move || ask(address, path, "localhost")).await.unwrap()
    }

    async fn start(shutdown: Shutdown) -> Admin {
        Admin::start(LOOPBACK.parse().unwrap(), false, shutdown).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_program_is_ready_while_it_runs_and_its_broker_is_well() {
        let (ask, shutdown) = Shutdown::manual();
        let admin = start(shutdown.clone()).await;
        assert_eq!(get(&admin, "/health/live").await, (200, "alive\n".to_owned()));
        assert_eq!(get(&admin, "/health/ready").await, (503, "starting\n".to_owned()));

        let directory = tempfile::tempdir().unwrap();
        let bare = broker::embedded::open(broker::embedded::Config::new(directory.path()));
        let broker = layers::Config::default().wrap(bare.await.unwrap(), Policy::default());
        let [topic, group] = ["admin-images", "admin-group"];
        let (topic, group) = (Topic::new(topic).unwrap(), Group::new(group).unwrap());
        broker.ensure_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        shutdown.ready(&broker, &[(&topic, &group)]);
        assert_eq!(get(&admin, "/health/ready").await, (200, "ready\n".to_owned()));

        broker.publish_one(&topic, Message::new("image")).await.unwrap();
        let (status, shown) = get(&admin, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "# TYPE forebay_published_messages_total counter",
            "forebay_operation_seconds_bucket{",
            "forebay_lag_messages{backend=\"embedded\",topic=\"admin-images\",group=\"admin-group\",\
             partition=\"0\"} 1",
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }

        ask.send_replace(true);
        assert_eq!(get(&admin, "/health/ready").await, (503, "draining\n".to_owned()));
        assert_eq!(get(&admin, "/health/live").await.0, 200);
        ask.send_replace(false);
        broker.shutdown().await.unwrap();
        let unwell = (503, "the broker is not well: closed\n".to_owned());
        assert_eq!(get(&admin, "/health/ready").await, unwell);
    }

    #[tokio::test]
    async fn off_loopback_it_takes_an_explicit_word() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let shutdown = Shutdown::manual().1;
        let failure = Admin::start(everywhere, false, shutdown.clone()).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::Config);
        assert!(failure.to_string().contains("insecure = true"), "{failure}");
        Admin::start(everywhere, true, shutdown).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn names_that_may_belong_to_others_are_refused() {
        let admin = start(Shutdown::manual().1).await;
        let address = admin.address();
        let statuses = tokio::task::spawn_blocking(move || {
            ["localhost", "127.0.0.1:80", "[::1]:9", "evil.example", "localhost.evil.example", ""]
                .map(|host| ask(address, "/health/live", host).0)
        });
        assert_eq!(statuses.await.unwrap(), [200, 200, 200, 421, 421, 421]);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let admin = start(Shutdown::manual().1).await;
        let failure = Admin::start(admin.address(), false, Shutdown::manual().1).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::Start);
        assert!(failure.to_string().contains(&admin.address().to_string()), "{failure}");
    }
}
