//! NumPy's `.npy`: a mark, a version, the length of the header, the header as a Python dictionary, and the elements.
//! Only the dictionary that NumPy itself writes is understood. Object arrays, which hold pickled code, are refused by their type.

use super::{ImageError, PIXELS, SIDE};

const MARK: &[u8] = b"\x93NUMPY";

/// NumPy's own headers have at most a few hundred bytes.
const HEADER_MAX: usize = 10_000;

/// Whether the payload begins like an array.
pub(super) fn is_array(payload: &[u8]) -> bool {
    payload.starts_with(MARK)
}

/// Writes the array's elements to `pixels`: bytes as 0 to 255, floating-point numbers as 0 to 1.
pub(super) fn read(payload: &[u8], pixels: &mut [f32; PIXELS]) -> Result<(), ImageError> {
    let (header, elements) = split(&payload[MARK.len()..])?;
    let header = Header::parse(header)?;
    header.check()?;
    let values: Vec<f64> = match header.kind {
        "|u1" | "<u1" | ">u1" => sized(elements, |[byte]: [u8; 1]| f64::from(byte) / 255.0)?,
        "<f4" => sized(elements, |bytes| f64::from(f32::from_le_bytes(bytes)))?,
        ">f4" => sized(elements, |bytes| f64::from(f32::from_be_bytes(bytes)))?,
        "<f8" => sized(elements, f64::from_le_bytes)?,
        ">f8" => sized(elements, f64::from_be_bytes)?,
        other => {
            return Err(refused(format!(
                "has elements of type {other:?}, expected uint8, float32 or float64"
            )));
        }
    };
    for (index, value) in values.into_iter().enumerate() {
        if !(0.0..=1.0).contains(&value) {
            return Err(ImageError::Range { index, value });
        }
        // Fortran's order has the column first.
        let target = if header.fortran { index % SIDE * SIDE + index / SIDE } else { index };
        pixels[target] = value as f32;
    }
    Ok(())
}

fn refused(reason: impl Into<String>) -> ImageError {
    ImageError::Array { reason: reason.into() }
}

/// Header and elements of what follows the mark.
fn split(rest: &[u8]) -> Result<(&str, &[u8]), ImageError> {
    let cut = || refused("is cut off in its header");
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [major @ (0 | 4..), ..] => {
            return Err(refused(format!("has version {major}, expected 1 to 3")));
        }
        _ => return Err(cut()),
    };
    if length > HEADER_MAX {
        return Err(refused(format!("has a header of {length} bytes, the limit is {HEADER_MAX}")));
    }
    let (header, elements) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = str::from_utf8(header).map_err(|_| refused("has a header that is no text"))?;
    Ok((header, elements))
}

/// Elements of `N` bytes each, of which there must be as many as pixels.
fn sized<const N: usize>(
    elements: &[u8],
    convert: impl Fn([u8; N]) -> f64,
) -> Result<Vec<f64>, ImageError> {
    if elements.len() != PIXELS * N {
        return Err(refused(format!(
            "has {} bytes of elements, expected {}",
            elements.len(),
            PIXELS * N
        )));
    }
    Ok(elements.as_chunks().0.iter().map(|bytes| convert(*bytes)).collect())
}

/// What the dictionary says.
#[derive(Debug, PartialEq)]
struct Header<'a> {
    kind: &'a str,
    fortran: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Result<Self, ImageError> {
        let malformed =
            || refused(format!("has a header that we do not understand: {:?}", text.trim_end()));
        let (mut kind, mut fortran, mut shape) = (None, None, None);
        let mut rest = text
            .trim()
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .ok_or_else(malformed)?;
        while !rest.trim().is_empty() {
            let (key, after) = quoted(rest).ok_or_else(malformed)?;
            let after = after.trim_start().strip_prefix(':').ok_or_else(malformed)?;
            rest = match key {
                // A structured type is a list, which is no quoted string.
                "descr" => store(&mut kind, quoted(after)),
                "fortran_order" => store(&mut fortran, truth(after)),
                "shape" => store(&mut shape, tuple(after)),
                _ => None,
            }
            .ok_or_else(malformed)?;
            rest = rest.trim_start().strip_prefix(',').unwrap_or(rest);
        }
        let (Some(kind), Some(fortran), Some(shape)) = (kind, fortran, shape) else {
            return Err(malformed());
        };
        Ok(Self { kind, fortran, shape })
    }

    fn check(&self) -> Result<(), ImageError> {
        match self.shape[..] {
            [SIDE, SIDE] | [SIDE, SIDE, 1] | [1, SIDE, SIDE] => Ok(()),
            _ => Err(refused(format!(
                "has shape {:?}, expected [28, 28], [28, 28, 1] or [1, 28, 28]",
                self.shape
            ))),
        }
    }
}

/// Keeps a value that was parsed and goes on with the rest.
fn store<'a, T>(target: &mut Option<T>, parsed: Option<(T, &'a str)>) -> Option<&'a str> {
    let (value, rest) = parsed?;
    *target = Some(value);
    Some(rest)
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn truth(text: &str) -> Option<(bool, &str)> {
    let text = text.trim_start();
    let is = |word, value| text.strip_prefix(word).map(|rest| (value, rest));
    is("True", true).or_else(|| is("False", false))
}

fn tuple(text: &str) -> Option<(Vec<usize>, &str)> {
    let (inside, rest) = text.trim_start().strip_prefix('(')?.split_once(')')?;
    let lengths =
        inside.trim().trim_end_matches(',').split(',').map(|length| length.trim().parse().ok());
    Some((lengths.collect::<Option<_>>()?, rest))
}
