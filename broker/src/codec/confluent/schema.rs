//! Schemas as a registry keeps them.

use serde::{Deserialize, Serialize};

/// A schema's text and what it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schema {
    /// The language that it is written in; Avro where a registry says nothing.
    #[serde(rename = "schemaType", default)]
    pub kind: Kind,
    /// The schema itself.
    #[serde(rename = "schema")]
    pub text: String,
    /// The schemas that it refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

impl Schema {
    /// A schema that refers to no other.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), references: Vec::new() }
    }
}

/// The languages that schemas are written in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Avro.
    #[default]
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol buffers.
    Protobuf,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// What the other one calls it.
    pub name: String,
    /// The subject that it is registered under.
    pub subject: String,
    /// Its version there.
    pub version: u32,
}

/// A schema's place in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Registered {
    /// The id that messages name it by.
    pub id: u32,
    /// The subject that it is registered under.
    pub subject: String,
    /// Its version there.
    pub version: u32,
    /// The schema.
    #[serde(flatten)]
    pub schema: Schema,
}
