//! A schema that was parsed, with those that it refers to.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::walk;
use crate::codec::{corrupt, formless, misfit};
use crate::error::{Error, ErrorKind, Result};

/// A schema whose references all resolve.
#[derive(Debug)]
pub(in crate::codec) struct Compiled {
    root: Schema,
    /// Those that it refers to, each behind what it refers to itself.
    others: Vec<Schema>,
}

impl Compiled {
    /// Parses a schema; `others` hold the named types that it refers to.
    pub(in crate::codec) fn parse(text: &str, others: &[String]) -> Result<Self> {
        let (root, others) = Schema::parse_str_with_list(text, others).map_err(invalid)?;
        Self { root, others }.checked()
    }

    pub(super) fn of(root: Schema) -> Result<Self> {
        Self { root, others: Vec::new() }.checked()
    }

    fn checked(self) -> Result<Self> {
        self.resolved().map_err(invalid)?;
        Ok(self)
    }

    /// Appends a value.
    pub(in crate::codec) fn write<T: Serialize>(
        &self,
        value: &T,
        payload: &mut Vec<u8>,
    ) -> Result<()> {
        let write = |payload| {
            let writer = GenericDatumWriter::builder(&self.root);
            let writer = writer.resolved_schemata(self.resolved()?).build()?;
            writer.write_ser(payload, value).map(drop)
        };
        write(payload).map_err(|error| formless::<T>("Avro", error))
    }

    /// Reads a value that was written with this schema, resolved to that of a `reader` which is
    /// another one.
    pub(in crate::codec) fn read<T: DeserializeOwned + Send>(
        &self,
        payload: &[u8],
        reader: Option<&Self>,
    ) -> Result<T> {
        let (resolved, depth) = self.check(payload)?;
        let read = || {
            let datum = GenericDatumReader::builder(&self.root)
                .resolved_writer_schemata(resolved)
                .maybe_reader_schema(reader.map(|reader| &reader.root))
                .maybe_resolved_reader_schemata(reader.map(Self::resolved).transpose()?)
                .build()?;
            // The library's direct deserializer does not resolve, and wants a type to be called
            // like its record.
            from_value(&datum.read_value(&mut &payload[..])?)
        };
        with_room(depth, read)?.map_err(|error| misfit::<T>("Avro", error))
    }

    fn resolved(&self) -> Result<ResolvedSchema<'_>, apache_avro::Error> {
        let all = self.others.iter().chain([&self.root]);
        ResolvedSchema::new_with_schemata(all.collect())
    }

    /// The library takes a payload that is cut off for one with nulls, and trusts lengths: it
    /// gets what it needs to read the payload only once that is known to be sound.
    fn check(&self, payload: &[u8]) -> Result<(ResolvedSchema<'_>, usize)> {
        let resolved = self.resolved().map_err(invalid)?;
        let depth = walk::check(&self.root, resolved.get_names(), payload)
            .map_err(|problem| corrupt(format!("the payload is no Avro: it {problem}")))?;
        Ok((resolved, depth))
    }
}

/// What schemas are compared and named by in a registry.
#[cfg(feature = "schema-registry")]
impl Compiled {
    /// The full name of a record, enumeration or fixed; the type's name of anything else.
    pub(in crate::codec) fn name(&self) -> String {
        match self.root.name() {
            Some(name) => name.fullname(None),
            None => self.root.canonical_form().trim_matches('"').to_owned(),
        }
    }

    /// Whether both write and read the same bytes for the same values.
    pub(in crate::codec) fn equals(&self, other: &Self) -> bool {
        self.root == other.root && self.others == other.others
    }
}

/// Reads a value that is nested so deep. Reading takes some stack for each level, without
/// optimisation up to 60 KB: what is deeper than usual gets a stack of its own.
fn with_room<R: Send>(depth: usize, read: impl FnOnce() -> R + Send) -> Result<R> {
    if depth <= DEPTH_USUAL {
        return Ok(read());
    }
    let failed = |message| Error::new(ErrorKind::Unexpected, "decode", message);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(LEVEL_STACK * walk::DEPTH_MAX);
        let thread = thread.spawn_scoped(scope, read).map_err(|error| {
            failed("a deep value gets no thread").with_retryable(true).with_source(error)
        })?;
        thread.join().map_err(|_| failed("reading a deep value panicked"))
    })
}

/// Up to how many levels a value is read where it is.
const DEPTH_USUAL: usize = 16;
/// The stack of each level of a deep value, in bytes.
const LEVEL_STACK: usize = 128 << 10;

fn invalid(error: apache_avro::Error) -> Error {
    let message = "the Avro schema is not valid";
    Error::new(ErrorKind::ConfigInvalid, "parse schema", message).with_source(error)
}
