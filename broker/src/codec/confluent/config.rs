//! The section `[registry]`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Section;
use crate::error::Result;

/// What `[registry]` says.
///
/// `url` (required; with the path where the interface has one, such as
/// `http://localhost:8080/apis/ccompat/v7`), `user` and `password`, or `token`, `ca` (a PEM file
/// with the certificates to trust instead of the public ones), `subjects` (`topic`; `record`,
/// `topic-record`), `register` (true: publishers register their schemas; else they must be there
/// already), `timeout` (10s, of one request), `patience` (30s: how long an outage is waited for
/// before a call fails), `cached` (1000 schemas).
#[derive(Clone)]
pub struct Config {
    /// Where the interface is, without a slash at the end.
    pub url: String,
    /// Who asks.
    pub credentials: Credentials,
    /// The certificates to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// What publishers register their schemas under.
    pub subjects: Subjects,
    /// Whether publishers register their schemas; else they must be there already.
    pub register: bool,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long an outage is waited for before a call fails.
    pub patience: Duration,
    /// How many schemas are remembered.
    pub cached: usize,
}

/// Who asks.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user with a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// The bearer of a token.
    Bearer(String),
}

/// The subject that a schema is registered under.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Subjects {
    /// `TOPIC-value`: one type for each topic.
    #[default]
    Topic,
    /// The record's full name: one type, whatever the topic.
    Record,
    /// `TOPIC-NAME`: several types in a topic, each by itself.
    TopicRecord,
}

impl Subjects {
    /// The subject of a schema whose record is called `record`, on `topic`.
    pub fn of(self, topic: &str, record: &str) -> String {
        match self {
            Self::Topic => format!("{topic}-value"),
            Self::Record => record.to_owned(),
            Self::TopicRecord => format!("{topic}-{record}"),
        }
    }
}

impl Config {
    /// The registry at `url`, with the defaults.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            credentials: Credentials::None,
            ca: None,
            subjects: Subjects::Topic,
            register: true,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            cached: 1000,
        }
    }

    /// Reads the section. Does no I/O.
    pub fn from_section(mut section: Section) -> Result<Self> {
        let default = Self::new(&section.require::<String>("url")?);
        if let Some(problem) = url_problem(&default.url) {
            return Err(section.error("url", problem));
        }
        let credentials = credentials(&mut section)?;
        let subjects = [
            ("topic", Subjects::Topic),
            ("record", Subjects::Record),
            ("topic-record", Subjects::TopicRecord),
        ];
        let cached = NonZeroUsize::new(default.cached).unwrap_or(NonZeroUsize::MIN);
        let config = Self {
            credentials,
            ca: section.take("ca")?,
            subjects: section.choose("subjects", default.subjects, &subjects)?,
            register: section.take_or("register", default.register)?,
            timeout: section.take_or("timeout", default.timeout)?,
            patience: section.take_or("patience", default.patience)?,
            cached: section.take_or("cached", cached)?.get(),
            ..default
        };
        section.finish()?;
        Ok(config)
    }
}

/// A URL is shown in errors, so that secrets must not stand in it.
pub(super) fn url_problem(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return Some("it begins with neither http:// nor https://") };
    let host = rest.split('/').next().unwrap_or_default();
    match () {
        () if host.is_empty() => Some("it names no host"),
        () if host.contains('@') => Some("use the keys user and password instead"),
        () if rest.contains(['?', '#']) => Some("it may hold a path and nothing behind it"),
        () => None,
    }
}

fn credentials(section: &mut Section) -> Result<Credentials> {
    let user: Option<String> = section.take("user")?;
    let password: Option<String> = section.take("password")?;
    let token: Option<String> = section.take("token")?;
    match (user, password, token) {
        (None, None, None) => Ok(Credentials::None),
        (None, None, Some(token)) => Ok(Credentials::Bearer(token)),
        (Some(user), Some(password), None) => Ok(Credentials::Basic { user, password }),
        (Some(_), None, None) => Err(section.error("password", "the user needs one")),
        (None, Some(_), None) => Err(section.error("user", "the password needs one")),
        (_, _, Some(_)) => Err(section.error("token", "choose a user or a token, not both")),
    }
}

impl fmt::Debug for Credentials {
    /// Secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user:?})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, credentials, subjects, register, .. } = self;
        f.debug_struct("Config")
            .field("url", url)
            .field("credentials", credentials)
            .field("subjects", subjects)
            .field("register", register)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::File;

    fn read(text: &str) -> Result<Config> {
        let environment = HashMap::from([("TOKEN", "secret")]);
        let text = format!("[registry]\n{text}");
        let file = File::parse(Path::new("forebay.ini"), &text, &environment).unwrap();
        Config::from_section(file.section("registry"))
    }

    #[test]
    fn the_section_is_read() {
        let config = read("url = https://host:8081/apis/ccompat/v7/\n").unwrap();
        assert_eq!(config.url, "https://host:8081/apis/ccompat/v7");
        assert!(config.register && config.subjects == Subjects::Topic);
        let config = read(
            "url = http://host\ntoken = ${TOKEN}\nca = ca.pem\nsubjects = topic-record\n\
             register = false\ntimeout = 1s\npatience = 2s\ncached = 5\n",
        )
        .unwrap();
        assert!(matches!(&config.credentials, Credentials::Bearer(token) if token == "secret"));
        assert_eq!(
            (config.subjects, config.register, config.cached),
            (Subjects::TopicRecord, false, 5)
        );
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "url"),
            ("url = host:8081\n", "neither http:// nor https://"),
            ("url = http:///path\n", "no host"),
            ("url = http://ada:secret@host\n", "use the keys user and password"),
            ("url = http://host?a=b\n", "nothing behind it"),
            ("url = http://host\nuser = ada\n", "key: password"),
            ("url = http://host\npassword = secret\n", "key: user"),
            ("url = http://host\nuser = ada\ntoken = secret\n", "a user or a token"),
            ("url = http://host\nsubjects = some\n", "topic-record"),
            ("url = http://host\ncached = 0\n", "above zero"),
            ("url = http://host\ntimout = 1s\n", "timeout"),
        ];
        for (text, problem) in cases {
            let shown = read(text).unwrap_err().to_string();
            assert!(shown.contains(problem) && !shown.contains("secret"), "{text}: {shown}");
        }
    }

    #[test]
    fn subjects_are_named_by_topic_and_record() {
        let of = |subjects: Subjects| subjects.of("orders", "shop.Order");
        assert_eq!(of(Subjects::Topic), "orders-value");
        assert_eq!(of(Subjects::Record), "shop.Order");
        assert_eq!(of(Subjects::TopicRecord), "orders-shop.Order");
    }
}
