//! From an encoded image to grey pixels.

use std::io::Cursor;

use image::codecs::{
    bmp::BmpDecoder, gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder,
};
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, metadata::Orientation};

use super::{ImageError, Limits, PIXELS, SIDE};

/// A decoder needs at most this many bytes a pixel beside the payload: 16-bit colour with alpha, twice.
const DECODER_BYTES_A_PIXEL: u64 = 16;

/// An image that is decoded.
pub(super) enum Decoded {
    /// It is 28x28 and grey.
    Ready(Box<[u8; PIXELS]>),
    /// It has another size, or had colours.
    Grey(GrayImage),
}

/// Tells the format from the first bytes.
pub(super) fn sniff(payload: &[u8]) -> Option<ImageFormat> {
    match payload {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(ImageFormat::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        // Two letters are little to go by: the size of the second header has to be one of those in use.
        [b'B', b'M', rest @ ..] => {
            matches!(rest.get(12..16)?, [12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
                .then_some(ImageFormat::Bmp)
        }
        _ => None,
    }
}

/// Reads the header, checks it against the limits, and only then decodes.
pub(super) fn decode(
    payload: &[u8],
    format: ImageFormat,
    limits: &Limits,
) -> Result<Decoded, ImageError> {
    let name = name(format);
    let cursor = Cursor::new(payload);
    let grey = match format {
        ImageFormat::Png => {
            PngDecoder::with_limits(cursor, allocation(limits)).map(|it| grey(it, name, limits))
        }
        ImageFormat::Jpeg => JpegDecoder::new(cursor).map(|it| grey(it, name, limits)),
        ImageFormat::Bmp => BmpDecoder::new(cursor).map(|it| grey(it, name, limits)),
        ImageFormat::Gif => GifDecoder::new(cursor).map(|it| grey(it, name, limits)),
        _ => WebPDecoder::new(cursor).map(|it| grey(it, name, limits)),
    };
    grey.unwrap_or_else(|error| Err(damaged(name, &error)))
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        _ => "WebP",
    }
}

fn damaged(format: &'static str, error: &image::ImageError) -> ImageError {
    ImageError::Damaged { format, reason: error.to_string() }
}

fn allocation(limits: &Limits) -> image::Limits {
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc =
        Some(limits.pixels_max.saturating_mul(DECODER_BYTES_A_PIXEL).max(1 << 20));
    allocation
}

fn grey(
    mut decoder: impl ImageDecoder,
    format: &'static str,
    limits: &Limits,
) -> Result<Decoded, ImageError> {
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels_max {
        let (width, height) = (u64::from(width), u64::from(height));
        return Err(ImageError::Pixels { format, width, height, limit: limits.pixels_max });
    }
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format, reason: format!("it is {width}x{height}") });
    }
    let fail = |error| damaged(format, &error);
    if (width as usize, height as usize) == (SIDE, SIDE) && decoder.color_type() == ColorType::L8 {
        let mut pixels = Box::new([0; PIXELS]);
        decoder.read_image(pixels.as_mut_slice()).map_err(fail)?;
        return Ok(Decoded::Ready(pixels));
    }
    decoder.set_limits(allocation(limits)).map_err(fail)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    image.apply_orientation(orientation);
    Ok(flatten(image))
}

/// Takes colour and transparency away.
fn flatten(image: DynamicImage) -> Decoded {
    let ready =
        (image.width() as usize, image.height() as usize) == (SIDE, SIDE) && is_grey(&image);
    let grey = match image {
        DynamicImage::ImageLuma8(grey) => grey,
        image if image.color().has_alpha() => compose(&image),
        image => image.into_luma8(),
    };
    match <&[u8; PIXELS]>::try_from(grey.as_raw().as_slice()) {
        Ok(pixels) if ready => Decoded::Ready(Box::new(*pixels)),
        _ => Decoded::Grey(grey),
    }
}

/// Whether nothing is lost by taking colour and transparency away; many programs write grey images as coloured ones.
fn is_grey(image: &DynamicImage) -> bool {
    image
        .to_rgba8()
        .pixels()
        .all(|pixel| matches!(pixel.0, [red, green, blue, 255] if red == green && green == blue))
}

/// Lays an image with transparency on white, or on black if what is drawn is light.
fn compose(image: &DynamicImage) -> GrayImage {
    let image = image.to_luma_alpha8();
    let (mut light, mut opacity) = (0, 0);
    for pixel in image.pixels() {
        let [grey, alpha] = pixel.0.map(u64::from);
        light += grey * alpha;
        opacity += alpha;
    }
    let background = if light > opacity * 128 { 0 } else { 255 };
    let mut composed = GrayImage::new(image.width(), image.height());
    for (target, source) in composed.iter_mut().zip(image.pixels()) {
        let [grey, alpha] = source.0.map(u32::from);
        // Two parts of 255 add up to at most 255.
        *target = ((grey * alpha + background * (255 - alpha) + 127) / 255) as u8;
    }
    composed
}
