//! A look over bytes before they are decoded: whether they are exactly one value of a schema.
//!
//! `apache_avro` reads a string that is cut off as a null, recurses as deep as the bytes tell
//! it to, and allocates what they claim. Here every length is checked against what is there.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, NamespaceRef, UuidSchema};

/// How deep values may be nested: as deep as serde_json lets them.
pub(super) const DEPTH_MAX: usize = 128;

type Problem = &'static str;

/// Tells how deep the value is nested, or what is wrong with the bytes, to stand behind "it".
pub(super) fn check(schema: &Schema, names: &NamesRef<'_>, bytes: &[u8]) -> Result<usize, Problem> {
    let items = bytes.len() as u64;
    let mut walk = Walk { names, rest: bytes, items, depth: 0, deepest: 0 };
    walk.value(schema, None)?;
    if walk.rest.is_empty() { Ok(walk.deepest) } else { Err("goes on behind its end") }
}

struct Walk<'a> {
    names: &'a NamesRef<'a>,
    rest: &'a [u8],
    /// How many items may follow in arrays and maps. An item of no bytes costs nothing to
    /// claim, so that their number must be bounded apart.
    items: u64,
    depth: usize,
    deepest: usize,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, space: NamespaceRef) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("is nested too deep");
        }
        self.deepest = self.deepest.max(self.depth);
        self.inside(schema, space)?;
        self.depth -= 1;
        Ok(())
    }

    fn inside(&mut self, schema: &Schema, space: NamespaceRef) -> Result<(), Problem> {
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.skip(1),
            Schema::Int
            | Schema::Date
            | Schema::TimeMillis
            | Schema::Enum(_)
            | Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.long().map(drop),
            Schema::Float => self.skip(4),
            Schema::Double => self.skip(8),
            Schema::Bytes
            | Schema::String
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => self.bytes(),
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed)) => self.skip(fixed.size as u64),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.bytes(),
                InnerDecimalSchema::Fixed(fixed) => self.skip(fixed.size as u64),
            },
            Schema::Array(array) => self.blocks(|walk| walk.value(&array.items, space)),
            Schema::Map(map) => self.blocks(|walk| {
                walk.bytes()?;
                walk.value(&map.types, space)
            }),
            Schema::Union(union) => {
                let index = usize::try_from(self.long()?).unwrap_or(usize::MAX);
                let variant = union.variants().get(index);
                self.value(variant.ok_or("has a union of no such type")?, space)
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(space);
                let mut fields = record.fields.iter();
                fields.try_for_each(|field| self.value(&field.schema, name.namespace()))
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(space);
                let named = self.names.get(&*name).ok_or("is of a type that nobody defines")?;
                self.inside(named, name.namespace())
            }
        }
    }

    fn blocks(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The size of the block in bytes, for readers that skip it.
                self.long()?;
            }
            let count = count.unsigned_abs();
            self.items = self.items.checked_sub(count).ok_or("claims more items than it holds")?;
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    fn bytes(&mut self) -> Result<(), Problem> {
        let length = u64::try_from(self.long()?).map_err(|_| "has a length below zero")?;
        self.skip(length)
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.rest = self.rest.get(length..).ok_or(CUT)?;
        Ok(())
    }

    /// A number of up to ten bytes, zigzag encoded.
    fn long(&mut self) -> Result<i64, Problem> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(CUT)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("has a number that is too long")
    }
}

const CUT: Problem = "is cut off";
