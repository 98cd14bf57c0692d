//! The rules of the specification. Each problem names the attribute and its value.

use super::event::{Event, Value};

/// Names that are no extension's, beside those of the attributes.
const RESERVED: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
];

/// Checks everything but the time, whose type checks itself.
pub(super) fn event(event: &Event) -> Result<(), String> {
    for name in event.extensions.keys() {
        extension_name(name)?;
    }
    for (name, value) in event.attributes() {
        let Value::Text(text) = value else { continue };
        if let Some(bad) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(format!("the attribute {name:?} holds the character {bad:?}"));
        }
        let may_be_empty = event.extensions.contains_key(name);
        if text.is_empty() && !may_be_empty {
            return Err(format!("the attribute {name:?} is empty"));
        }
        let (fits, wanted) = match name {
            "source" => (is_uri_reference(text), "a URI reference"),
            "dataschema" => (is_uri(text), "a URI"),
            "datacontenttype" => (is_media_type(text), "a media type"),
            _ => continue,
        };
        if !fits {
            return Err(format!("the attribute {name:?} is {text:?}, not {wanted}"));
        }
    }
    Ok(())
}

fn extension_name(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) {
        return Err(format!("the extension {name:?} has a name of the specification"));
    }
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(is_fine) {
        return Err(format!("the attribute name {name:?} is not of lower-case letters and digits"));
    }
    Ok(())
}

/// Neither a control character nor one that Unicode keeps for nobody.
fn is_allowed(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

fn is_uri_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |pair: &[u8]| pair.iter().all(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(is_hex),
        _ => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    })
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let begins = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    begins && scheme.bytes().all(is_fine) && is_uri_reference(text)
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*'`|~%".contains(&byte);
        !part.is_empty() && part.bytes().all(is_fine)
    };
    essence.split_once('/').is_some_and(|(kind, name)| is_token(kind) && is_token(name))
}
