//! Digits that are drawn, not stored: as many different sample images as a demo wants, from a seed.
//!
//! Pens, hands, sizes, colours and file formats vary as they do in what people send. The same seed and index always give the same image.

mod render;
mod skeleton;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::preprocess::{self, Limits, PIXELS, SIDE};
use render::Style;

/// An encoded image of a digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The digit, 0 to 9.
    pub label: u8,
    /// The image's width in pixels, 24 to 400.
    pub width: u32,
    /// The image's height in pixels, 24 to 400.
    pub height: u32,
    /// `image/png`, `image/jpeg` or `image/bmp`.
    pub content_type: &'static str,
    /// The encoded image.
    pub bytes: Vec<u8>,
}

/// Draws sample `index` of the series that `seed` names.
pub fn draw(seed: u64, index: u64) -> Sample {
    // An odd factor keeps neighbouring indices and seeds from sharing a generator.
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
    let label = random.random_range(0..10);
    let strokes = skeleton::strokes(label, &mut random);
    let style = Style::random(&mut random);
    let image = render::render(&strokes, &style, &mut random);
    match random.random_range(0..100) {
        0..45 => sample(label, &image, "image/png", encode(&image, ImageFormat::Png)),
        45..70 => sample(label, &image, "image/jpeg", jpeg(&image, random.random_range(70..=95))),
        70..85 => sample(label, &image, "image/bmp", encode(&image, ImageFormat::Bmp)),
        _ => as_mnist(label, &image),
    }
}

fn sample(label: u8, image: &RgbImage, content_type: &'static str, bytes: Vec<u8>) -> Sample {
    Sample { label, width: image.width(), height: image.height(), content_type, bytes }
}

fn encode(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("an RGB image of this size is encodable, and memory takes it");
    bytes.into_inner()
}

fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    image
        .write_with_encoder(encoder)
        .expect("an RGB image of this size is encodable, and memory takes it");
    bytes
}

/// A grey 28x28 image of the form that the model takes.
fn as_mnist(label: u8, image: &RgbImage) -> Sample {
    let mut pixels = [0.0; PIXELS];
    let encoded = encode(image, ImageFormat::Bmp);
    preprocess::preprocess(&encoded, None, &Limits::default(), &mut pixels)
        .expect("we can read what we just wrote");
    let grey = pixels.map(|pixel| (pixel * 255.0).round() as u8);
    let mut bytes = Vec::new();
    let side = SIDE as u32;
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&grey, side, side, ExtendedColorType::L8)
        .expect("the pixels are as many as width and height say, and memory takes them");
    Sample { label, width: side, height: side, content_type: "image/png", bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_index_give_the_same_sample() {
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
        assert_ne!(draw(7, 3), draw(8, 3));
    }

    #[test]
    fn every_sample_is_what_it_says() {
        let mut labels = [0; 10];
        let mut types = std::collections::BTreeSet::new();
        let mut ready = 0;
        for index in 0..200 {
            let sample = draw(1, index);
            labels[usize::from(sample.label)] += 1;
            types.insert(sample.content_type);
            let format = image::guess_format(&sample.bytes).unwrap();
            assert_eq!(format.to_mime_type(), sample.content_type);
            let image = image::load_from_memory(&sample.bytes).unwrap();
            assert_eq!((image.width(), image.height()), (sample.width, sample.height));
            assert!((24..=400).contains(&sample.width) && (24..=400).contains(&sample.height));
            ready += usize::from(
                (sample.width, sample.height) == (28, 28) && image.color() == image::ColorType::L8,
            );
        }
        assert!(labels.iter().all(|count| *count >= 5), "{labels:?}");
        assert_eq!(types.len(), 3);
        assert!(ready >= 10, "{ready}");
    }
}
