//! Requests to the registry. `ureq` blocks, so each runs on a thread for that; a request whose
//! caller has gone ends by its timeout. The environment's proxies are not used.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::config::{Config, Credentials, url_problem};
use super::error::{failure, refusal};
use crate::error::{Error, ErrorKind, Result};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// One request; without a body it only reads.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) operation: &'static str,
    /// Behind the registry's URL.
    pub(super) path: String,
    pub(super) body: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Http {
    agent: Agent,
    url: String,
    credentials: Credentials,
}

/// What the registry says where it refuses.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Http {
    pub(super) fn new(config: &Config) -> Result<Self> {
        if let Some(problem) = url_problem(&config.url) {
            // The URL is not shown: it may hold the very secret that it must not.
            let message = format!("the URL is not valid: {problem}");
            return Err(Error::new(ErrorKind::ConfigInvalid, "open registry", message));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.ca {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(path)?));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(config.timeout))
            .tls_config(tls.build())
            .build();
        let (url, credentials) = (config.url.clone(), config.credentials.clone());
        Ok(Self { agent: agent.into(), url, credentials })
    }

    /// Asks once.
    pub(super) async fn ask<A>(&self, request: &Request) -> Result<A>
    where
        A: DeserializeOwned + Send + 'static,
    {
        let operation = request.operation;
        let (http, request) = (self.clone(), request.clone());
        let asked = tokio::task::spawn_blocking(move || http.blocking(&request));
        asked.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, operation, "the request was cut off")
                .with_source(error)
        })?
    }

    fn blocking<A: DeserializeOwned>(&self, request: &Request) -> Result<A> {
        let operation = request.operation;
        let answer = self.send(request).and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((answer.status(), body))
        });
        let (status, body) = answer.map_err(|error| self.named(failure(operation, error)))?;
        if !status.is_success() {
            let words = serde_json::from_slice(&body)
                .map_or_else(|_| status.to_string(), |Refusal { message }| message);
            return Err(self.named(refusal(operation, status.as_u16(), &words)));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let message = "the schema registry's answer is not understood";
            self.named(Error::new(ErrorKind::Unexpected, operation, message).with_source(error))
        })
    }

    fn send(&self, request: &Request) -> Result<Response<ureq::Body>, ureq::Error> {
        let url = format!("{}{}", self.url, request.path);
        let authorization = self.credentials.header();
        match &request.body {
            Some(body) => {
                let mut post = self.agent.post(url).header("accept", MEDIA_TYPE);
                if let Some(authorization) = authorization {
                    post = post.header("authorization", authorization);
                }
                post.header("content-type", MEDIA_TYPE).send(body)
            }
            None => {
                let mut get = self.agent.get(url).header("accept", MEDIA_TYPE);
                if let Some(authorization) = authorization {
                    get = get.header("authorization", authorization);
                }
                get.call()
            }
        }
    }

    fn named(&self, error: Error) -> Error {
        error.with("url", &self.url)
    }
}

impl Credentials {
    fn header(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Bearer(token) => Some(format!("Bearer {token}")),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let invalid = |message: &str| {
        Error::new(ErrorKind::ConfigInvalid, "open registry", message).with("ca", path.display())
    };
    let pem = std::fs::read(path)
        .map_err(|error| invalid("the certificates cannot be read").with_source(error))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(invalid("the file is no PEM").with_source(error)),
        }
    }
    if certificates.is_empty() {
        return Err(invalid("the file holds no certificate"));
    }
    Ok(certificates)
}
