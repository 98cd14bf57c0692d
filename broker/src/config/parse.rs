//! Texts of an ini file as typed values.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::name::{Group, Topic};

/// A type that a key's text can stand for.
pub trait Parse: Sized {
    /// The value, or what is wrong with the text, to stand behind "is".
    fn parse(text: &str) -> Result<Self, String>;
}

/// A number of bytes, written as `512`, `64KiB`, `8MiB` or `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
const TIME_UNITS: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl Parse for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.parse().ok().or_else(|| with_unit(text, BYTE_UNITS));
        bytes.map(Self).ok_or_else(|| "no size such as 512, 64KiB, 8MiB or 1GiB".into())
    }
}

impl Parse for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let micros = with_unit(text, TIME_UNITS);
        let wrong = "no duration such as 500us, 250ms, 5s, 10m, 24h or 7d";
        micros.map(Self::from_micros).ok_or_else(|| wrong.into())
    }
}

impl Parse for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("neither true nor false".into()),
        }
    }
}

impl Parse for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("empty".into()) } else { Ok(text.to_owned()) }
    }
}

impl Parse for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(Self::from)
    }
}

macro_rules! parse_number {
    ($($type:ty: $wrong:literal),* $(,)?) => {$(
        impl Parse for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| $wrong.to_owned())
            }
        }
    )*};
}

parse_number! {
    u16: "no number from 0 to 65535",
    u32: "no whole number",
    u64: "no whole number",
    usize: "no whole number",
    f64: "no number",
    NonZeroU32: "no whole number above zero",
    NonZeroUsize: "no whole number above zero",
}

macro_rules! parse_name {
    ($($type:ty),*) => {$(
        impl Parse for $type {
            fn parse(text: &str) -> Result<Self, String> {
                Self::new(text).map_err(|error| format!("no valid name: {error}"))
            }
        }
    )*};
}

parse_name!(Topic, Group);
