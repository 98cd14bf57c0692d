//! Headers as attributes, without loss.
//!
//! Attributes are a map of short texts. Headers that are such a map are attributes of the same
//! names, which foreign clients read and write; [`ORDER`] tells their order where it is not that
//! of their names. Headers that repeat, are longer or are no text are kept, all of them in their
//! order, as a base64 block in the attributes [`BLOCK`], `forebay-headers.1` and so on. Then
//! those of them that fit are copied to plain attributes, for others to read, as far as there is
//! room; we read the block. Names that begin with `forebay-` are for this module and its parent.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Headers;

/// The most attributes of a message.
pub(super) const ATTRIBUTES_MAX: usize = 100;
/// The longest name of an attribute.
const NAME_LENGTH_MAX: usize = 256;
/// The longest value of an attribute.
const VALUE_LENGTH_MAX: usize = 1024;
/// What the names of our own attributes begin with.
pub(super) const RESERVED: &str = "forebay-";
/// What no attribute may begin with.
const FORBIDDEN: &str = "goog";
/// The places of the attributes, sorted by name, in the order of the headers: `2,0,1`.
const ORDER: &str = "forebay-header-order";
/// The encoded block, or its first piece.
const BLOCK: &str = "forebay-headers";

pub(super) type Attributes = HashMap<String, String>;

/// Adds headers to attributes that hold none yet.
///
/// Fails with `TooLarge` where they need more attributes than there may be.
pub(super) fn put(headers: &Headers, attributes: &mut Attributes) -> Result<()> {
    let room = ATTRIBUTES_MAX - attributes.len();
    let all: Vec<(&str, &[u8])> = headers.iter().collect();
    let plain: BTreeMap<&str, &str> = all.iter().filter_map(plain).collect();
    // One attribute is for the order.
    if plain.len() == all.len() && all.len() < room {
        put_order(&all, &plain, attributes);
        attributes.extend(plain.iter().map(owned));
        return Ok(());
    }
    let encoded = STANDARD_NO_PAD.encode(headers.as_block());
    let pieces = encoded.len().div_ceil(VALUE_LENGTH_MAX);
    if pieces > room {
        let problem = "the headers do not fit into 100 attributes of 1024 bytes";
        let error = Error::new(ErrorKind::TooLarge, "publish", problem);
        return Err(error.with("bytes", headers.as_block().len()));
    }
    for (number, piece) in encoded.as_bytes().chunks(VALUE_LENGTH_MAX).enumerate() {
        attributes.insert(piece_name(number), String::from_utf8_lossy(piece).into_owned());
    }
    attributes.extend(once(&all).take(room - pieces).map(|pair| owned((&pair.0, &pair.1))));
    Ok(())
}

/// The headers that attributes hold, once those of the parent are taken out.
pub(super) fn take(mut attributes: Attributes) -> Headers {
    if let Some(headers) = block(&mut attributes) {
        return headers;
    }
    let order = attributes.remove(ORDER);
    let sorted: BTreeMap<String, String> =
        attributes.into_iter().filter(|(name, _)| !name.starts_with(RESERVED)).collect();
    let sorted: Vec<(&str, &[u8])> =
        sorted.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    match order.and_then(|order| places(&order, sorted.len())) {
        Some(places) => places.into_iter().map(|place| sorted[place]).collect(),
        None => sorted.into_iter().collect(),
    }
}

/// A header that may be an attribute as it is.
fn plain<'a>((name, value): &(&'a str, &'a [u8])) -> Option<(&'a str, &'a str)> {
    let fits = (1..=NAME_LENGTH_MAX).contains(&name.len())
        && value.len() <= VALUE_LENGTH_MAX
        && !name.starts_with(RESERVED)
        && !name.starts_with(FORBIDDEN);
    let value = if fits { std::str::from_utf8(value).ok()? } else { return None };
    Some((name, value))
}

/// The first of each name, where it may be an attribute.
fn once<'a>(all: &[(&'a str, &'a [u8])]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut seen = HashSet::new();
    let first = all.iter().filter(move |(name, _)| seen.insert(*name));
    first.filter_map(plain)
}

fn owned((name, value): (&&str, &&str)) -> (String, String) {
    ((*name).to_owned(), (*value).to_owned())
}

fn put_order(all: &[(&str, &[u8])], sorted: &BTreeMap<&str, &str>, attributes: &mut Attributes) {
    if all.is_sorted_by_key(|(name, _)| *name) {
        return;
    }
    let place: HashMap<&str, usize> = sorted.keys().copied().zip(0..).collect();
    let order: Vec<String> = all.iter().map(|(name, _)| place[name].to_string()).collect();
    attributes.insert(ORDER.to_owned(), order.join(","));
}

/// The places that an order names; `None` where they do not fit, since someone else changed the
/// attributes.
fn places(order: &str, count: usize) -> Option<Vec<usize>> {
    let places: Option<Vec<usize>> = order.split(',').map(|place| place.parse().ok()).collect();
    let places = places?;
    let distinct: HashSet<usize> = places.iter().copied().filter(|place| *place < count).collect();
    (places.len() == count && distinct.len() == count).then_some(places)
}

fn piece_name(number: usize) -> String {
    if number == 0 { BLOCK.to_owned() } else { format!("{BLOCK}.{number}") }
}

fn block(attributes: &mut Attributes) -> Option<Headers> {
    let mut encoded = attributes.remove(BLOCK)?;
    for number in 1.. {
        let Some(piece) = attributes.remove(&piece_name(number)) else { break };
        encoded.push_str(&piece);
    }
    let block = STANDARD_NO_PAD.decode(encoded).ok()?;
    Headers::from_block(Bytes::from(block)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(headers: &Headers) -> Attributes {
        let mut attributes = Attributes::new();
        put(headers, &mut attributes).unwrap();
        let fits = |(name, value): (&String, &String)| {
            name.len() <= NAME_LENGTH_MAX && value.len() <= VALUE_LENGTH_MAX
        };
        assert!(attributes.iter().all(fits) && attributes.len() <= ATTRIBUTES_MAX);
        attributes
    }

    fn headers(list: &[(&str, &[u8])]) -> Headers {
        list.iter().copied().collect()
    }

    #[test]
    fn short_texts_of_different_names_are_plain_attributes() {
        let sorted = headers(&[("a", b"1"), ("b", b"")]);
        let expected = [("a", "1"), ("b", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(attributes(&sorted), expected.into());
        let unsorted = headers(&[("c", b"1"), ("a", b"2"), ("b", b"3")]);
        assert_eq!(attributes(&unsorted)[ORDER], "2,0,1");
        assert_eq!(attributes(&unsorted)["c"], "1");
    }

    #[test]
    fn every_list_of_headers_comes_back_as_it_was() {
        let long = "x".repeat(40_000);
        let many: Vec<String> = (0..300).map(|number| format!("n{number}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|n| (n.as_str(), &b"v"[..])).collect();
        let lists: [&[(&str, &[u8])]; 9] = [
            &[],
            &[("b", b"1"), ("a", b"2")],
            &[("a", b"1"), ("a", b"2")],
            &[("a", &[0, 255]), ("b", b"2")],
            &[("", b"no name")],
            &[("goog-x", b"1")],
            &[("forebay-headers", b"1"), ("forebay-time", b"2")],
            &[("long", long.as_bytes()), ("a", b"1")],
            &many,
        ];
        for list in lists {
            let headers = headers(list);
            assert_eq!(take(attributes(&headers)), headers, "{headers:?}");
        }
    }

    #[test]
    fn what_fits_can_be_read_by_others_beside_the_block() {
        let attributes = attributes(&headers(&[("id", b"7"), ("raw", &[255]), ("id", b"8")]));
        assert_eq!(attributes["id"], "7");
        assert!(!attributes.contains_key("raw") && attributes.contains_key(BLOCK));
    }

    #[test]
    fn attributes_of_others_become_headers() {
        let foreign = [("b", "2"), ("a", "1"), (ORDER, "1,1")];
        let foreign = foreign.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = headers(&[("a", b"1"), ("b", b"2")]);
        assert_eq!(take(foreign.into()), expected);
    }

    #[test]
    fn headers_beyond_all_attributes_are_too_large() {
        let headers = headers(&[("long", &[7; 80_000])]);
        let error = put(&headers, &mut Attributes::new()).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false));
    }
}
