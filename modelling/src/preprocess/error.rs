//! Why a payload is no image for us.

/// What is wrong with a payload that should be an image.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes.
    #[error("the payload is empty")]
    Empty,
    /// The payload is larger than the limit.
    #[error("the payload has {actual} bytes, the limit is {limit}")]
    Bytes {
        /// Its size.
        actual: usize,
        /// The largest size that is accepted.
        limit: usize,
    },
    /// The image's header claims more pixels than the limit; nothing was decoded.
    #[error("the {format} image is {width}x{height}, the limit is {limit} pixels")]
    Pixels {
        /// The image's format.
        format: &'static str,
        /// Its width.
        width: u64,
        /// Its height.
        height: u64,
        /// The most pixels that are accepted.
        limit: u64,
    },
    /// The bytes are of no format that we know.
    #[error(
        "the payload is no image: {description}; accepted: PNG, JPEG, BMP, GIF, WebP, NumPy .npy, or 784 raw bytes"
    )]
    Unknown {
        /// How the payload was declared, its size and how it starts.
        description: String,
    },
    /// An image of a known format can't be decoded.
    #[error("the {format} image is damaged: {reason}")]
    Damaged {
        /// The image's format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A NumPy array can't be taken as an image.
    #[error("the NumPy array {reason}")]
    Array {
        /// What is wrong with it.
        reason: String,
    },
    /// A floating-point pixel is not a number from 0 to 1.
    #[error("pixel {index} is {value}, expected 0 to 1")]
    Range {
        /// Its position in row-major order.
        index: usize,
        /// Its value.
        value: f64,
    },
}
