//! An event and its attributes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::time::Time;

/// Something that happened.
///
/// Fields may be set as one likes; what breaks a rule of the specification is refused, with the
/// attribute's name, when the event is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What tells the event from others of the same source.
    pub id: String,
    /// Where it happened: a URI or a part of one.
    pub source: String,
    /// What happened; the attribute `type`.
    pub event_type: String,
    /// What it happened to, within the source.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<Time>,
    /// The media type of the data.
    pub datacontenttype: Option<String>,
    /// The schema that the data keeps: a URI.
    pub dataschema: Option<String>,
    /// Further attributes, named by lower-case letters and digits.
    pub extensions: BTreeMap<String, Extension>,
    /// What else there is to say. No bytes are the same as no data.
    pub data: Option<Bytes>,
}

/// The value of a further attribute. Binary mode keeps only its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i32),
    /// A text; also a URI, a time or bytes in base64.
    Text(String),
}

impl Event {
    /// An event with the attributes that each must have.
    pub fn new(
        id: impl Into<String>,
        source: impl Into<String>,
        event_type: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            event_type: event_type.into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
            data: None,
        }
    }

    /// Sets the data and its media type.
    #[must_use]
    pub fn with_data(mut self, media_type: &str, data: impl Into<Bytes>) -> Self {
        self.datacontenttype = Some(media_type.to_owned());
        self.data = Some(data.into());
        self
    }

    /// Sets what it happened to.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets when it happened.
    #[must_use]
    pub fn with_time(mut self, time: impl Into<Time>) -> Self {
        self.time = Some(time.into());
        self
    }

    /// Sets a further attribute.
    #[must_use]
    pub fn with_extension(mut self, name: &str, value: impl Into<Extension>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl From<bool> for Extension {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for Extension {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<String> for Extension {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Extension {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// The attributes that the specification names, by which bindings read and write them.
#[derive(Default)]
pub(super) struct Attributes {
    texts: BTreeMap<String, Extension>,
}

impl Attributes {
    /// Adds one; fails where it is there already.
    pub(super) fn add(&mut self, name: &str, value: Extension) -> Result<(), String> {
        match self.texts.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(format!("the attribute {name:?} is there twice")),
        }
    }

    /// The event that they describe.
    pub(super) fn event(mut self, data: Option<Bytes>) -> Result<Event, String> {
        let version = self.require("specversion")?;
        if version != super::VERSION {
            return Err(format!("its version is {version:?}, not {:?}", super::VERSION));
        }
        let mut event =
            Event::new(self.require("id")?, self.require("source")?, self.require("type")?);
        event.subject = self.take("subject")?;
        event.time = self.take("time")?.map(|text| Time::read(&text)).transpose()?;
        event.datacontenttype = self.take("datacontenttype")?;
        event.dataschema = self.take("dataschema")?;
        event.extensions = self.texts;
        event.data = data.filter(|data| !data.is_empty());
        Ok(event)
    }

    fn require(&mut self, name: &str) -> Result<String, String> {
        self.take(name)?.ok_or_else(|| format!("the attribute {name:?} is missing"))
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.texts.remove(name) {
            None => Ok(None),
            Some(Extension::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("the attribute {name:?} is {other}, not a text")),
        }
    }
}

impl Event {
    /// The attributes that are set, in an order that readers like.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let own = [
            ("specversion", Some(super::VERSION)),
            ("id", Some(self.id.as_str())),
            ("source", Some(self.source.as_str())),
            ("type", Some(self.event_type.as_str())),
            ("subject", self.subject.as_deref()),
            ("time", self.time.as_ref().map(Time::as_str)),
            ("datacontenttype", self.datacontenttype.as_deref()),
            ("dataschema", self.dataschema.as_deref()),
        ];
        let own = own.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?))));
        let further = self.extensions.iter().map(|(name, value)| (name.as_str(), value.borrowed()));
        own.chain(further)
    }
}

/// The value of any attribute.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Boolean(bool),
    Integer(i32),
    Text(&'a str),
}

impl Extension {
    fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Text(value) => Value::Text(value),
        }
    }
}
