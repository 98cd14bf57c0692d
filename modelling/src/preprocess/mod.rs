//! Turning what people send into what the digit model takes: 28x28 pixels from 0 to 1, a light digit on black.
//!
//! The bytes decide how they are read, not the declared content type: a JPEG that is labelled as PNG works. The type only matters where
//! bytes have no mark of their own, as raw pixels do. An image that is 28x28 and grey already, raw pixels and NumPy arrays are taken as
//! they are; everything else is brought into the form of MNIST: light on black, cropped to the ink, fitted to 20x20, and centred by mass.

mod decode;
mod error;
mod normalise;
mod npy;

pub use error::ImageError;

/// The width and height that the model takes, in pixels.
pub const SIDE: usize = 28;
/// The pixels of one image that the model takes.
pub const PIXELS: usize = SIDE * SIDE;

/// How large a payload may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels that an image may have.
    pub pixels_max: u64,
    /// The most bytes that a payload may have.
    pub bytes_max: usize,
}

impl Default for Limits {
    /// 16 megapixels and 16 MiB.
    fn default() -> Self {
        Self { pixels_max: 1 << 24, bytes_max: 16 << 20 }
    }
}

/// Writes the image in `payload` to `pixels` in row-major order, each from 0 (background) to 1 (ink).
///
/// `content_type` is what the sender declared, if anything. After an error the pixels are unspecified.
///
/// # Errors
/// Whatever the bytes are, the function returns; see [`ImageError`] for what may be wrong with them.
pub fn preprocess(
    payload: &[u8],
    content_type: Option<&str>,
    limits: &Limits,
    pixels: &mut [f32; PIXELS],
) -> Result<(), ImageError> {
    if payload.is_empty() {
        return Err(ImageError::Empty);
    }
    if payload.len() > limits.bytes_max {
        return Err(ImageError::Bytes { actual: payload.len(), limit: limits.bytes_max });
    }
    if npy::is_array(payload) {
        return npy::read(payload, pixels);
    }
    if let Some(format) = decode::sniff(payload) {
        match decode::decode(payload, format, limits)? {
            decode::Decoded::Ready(grey) => take(&grey, pixels),
            decode::Decoded::Grey(grey) => normalise::normalise(&grey, pixels),
        }
        return Ok(());
    }
    match <&[u8; PIXELS]>::try_from(payload) {
        Ok(raw) if may_be_raw(content_type) => take(raw, pixels),
        _ => return Err(ImageError::Unknown { description: describe(payload, content_type) }),
    }
    Ok(())
}

/// Grey bytes as they are.
fn take(grey: &[u8; PIXELS], pixels: &mut [f32; PIXELS]) {
    pixels.iter_mut().zip(grey).for_each(|(pixel, grey)| *pixel = f32::from(*grey) / 255.0);
}

/// Raw pixels have no mark, so a declared type that names something else is believed.
fn may_be_raw(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    let raw = ["", "application/octet-stream", "application/x-raw", "image/x-raw", "image/raw"];
    raw.iter().any(|accepted| essence.eq_ignore_ascii_case(accepted))
}

fn describe(payload: &[u8], content_type: Option<&str>) -> String {
    let start = &payload[..payload.len().min(16)];
    let declared = content_type.map(|text| format!(", declared as {text:?}")).unwrap_or_default();
    format!("{} bytes that start with \"{}\"{declared}", payload.len(), start.escape_ascii())
}

#[cfg(test)]
mod tests;
