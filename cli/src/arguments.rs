//! What is written on command lines in the ways of the ini file.

use std::str::FromStr;
use std::time::Duration;

use broker::config::{ByteSize, Parse};
use broker::{Start, Timestamp};

use crate::calendar;

/// A place in a topic as people say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Earliest,
    Latest,
    /// In every partition.
    Offset(u64),
    Time(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// What it stands for now.
    pub(crate) fn start(self) -> Start {
        match self {
            Self::Earliest => Start::Earliest,
            Self::Latest => Start::Latest,
            Self::Offset(offset) => Start::Offset(offset),
            Self::Time(time) => Start::Time(time),
            Self::Ago(duration) => {
                let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
                let then = Timestamp::now().as_micros().saturating_sub(micros);
                Start::Time(Timestamp::from_micros(then))
            }
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse() {
            return Ok(Self::Offset(offset));
        }
        if let Some(ago) = text.strip_prefix('-') {
            return duration(ago).map(Self::Ago);
        }
        let time = calendar::parse(text).map(|micros| Self::Time(Timestamp::from_micros(micros)));
        time.ok_or_else(|| {
            "choose from: earliest, latest, an offset, a time such as 2026-11-21T06:43:20Z, \
             or a while ago such as -1h"
                .to_owned()
        })
    }
}

/// A duration, as in the ini file.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).map_err(|problem| format!("it is {problem}"))
}

/// A number of bytes, as in the ini file.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    ByteSize::parse(text).map(|size| size.0).map_err(|problem| format!("it is {problem}"))
}

/// A header as `NAME=VALUE`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_say_them() {
        let time = |micros| When::Time(Timestamp::from_micros(micros));
        let cases = [
            ("earliest", When::Earliest),
            ("latest", When::Latest),
            ("0", When::Offset(0)),
            ("1970-01-01T00:00:01Z", time(1_000_000)),
            ("1970-01-01T01:00:00.25+01:00", time(250_000)),
            ("-1h", When::Ago(Duration::from_secs(3600))),
            ("-250ms", When::Ago(Duration::from_millis(250))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "newest", "-", "-5", "-1 parsec", "1h", "2026-11-21", "-earliest"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn headers_end_their_name_at_the_first_equals_sign() {
        assert_eq!(header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(header("a="), Ok(("a".into(), String::new())));
        assert!(header("=b").is_err() && header("a").is_err());
    }
}
