//! Slight distortions of training images, so that the CNN learns digits and not the habits of those who wrote these.

use rand::Rng;

use crate::torch::{PIXELS, SIDE};

/// How far images are distorted at most, each measure uniformly to either side.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Distortion {
    /// Rotation in degrees.
    pub rotation_degrees: f32,
    /// Scaling of width and height, each by itself: 0.1 is 0.9 to 1.1.
    pub scale: f32,
    /// Slant: columns per row.
    pub shear: f32,
    /// Shift in pixels, in each direction.
    pub shift_pixels: f32,
}

impl Distortion {
    /// Images as they are.
    pub const NONE: Self =
        Self { rotation_degrees: 0.0, scale: 0.0, shear: 0.0, shift_pixels: 0.0 };

    /// What a hand does to a digit: it stays legible and never becomes another.
    pub const LIGHT: Self =
        Self { rotation_degrees: 12.0, scale: 0.12, shear: 0.15, shift_pixels: 2.0 };

    /// Writes an image's grey values, 0 to 1, into `target`, distorted by chance. Both have 784 pixels.
    pub fn apply(&self, image: &[u8], target: &mut [f32], random: &mut impl Rng) {
        if *self == Self::NONE {
            to_grey(image, target);
            return;
        }
        let map = self.draw(random);
        for (index, value) in target.iter_mut().enumerate().take(PIXELS) {
            let (x, y) = map.source((index % SIDE) as f32, (index / SIDE) as f32);
            *value = sample(image, x, y) / 255.0;
        }
    }

    fn draw(&self, random: &mut impl Rng) -> Map {
        let mut within = |bound: f32| bound * random.random_range(-1.0..=1.0f32);
        let (sin, cos) = within(self.rotation_degrees).to_radians().sin_cos();
        let (width, height) = (1.0 + within(self.scale), 1.0 + within(self.scale));
        let shear = within(self.shear);
        let shift = [within(self.shift_pixels), within(self.shift_pixels)];
        let [a, b, c, d] = [cos, -sin + shear * cos, sin, cos + shear * sin];
        Map { matrix: [a / width, b / width, c / height, d / height], shift }
    }
}

/// Grey values from 0 to 1.
pub(super) fn to_grey(image: &[u8], target: &mut [f32]) {
    for (value, pixel) in target.iter_mut().zip(image) {
        *value = f32::from(*pixel) / 255.0;
    }
}

/// Says where a pixel of the distorted image comes from.
struct Map {
    matrix: [f32; 4],
    shift: [f32; 2],
}

impl Map {
    fn source(&self, x: f32, y: f32) -> (f32, f32) {
        let centre = (SIDE as f32 - 1.0) / 2.0;
        let (x, y) = (x - centre - self.shift[0], y - centre - self.shift[1]);
        let [a, b, c, d] = self.matrix;
        (a * x + b * y + centre, c * x + d * y + centre)
    }
}

/// The grey value between pixels, by bilinear interpolation; outside is background.
fn sample(image: &[u8], x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right_share, lower_share) = (x - left, y - top);
    let (left, top) = (left as i32, top as i32);
    let upper =
        pixel(image, left, top) * (1.0 - right_share) + pixel(image, left + 1, top) * right_share;
    let lower = pixel(image, left, top + 1) * (1.0 - right_share)
        + pixel(image, left + 1, top + 1) * right_share;
    upper * (1.0 - lower_share) + lower * lower_share
}

fn pixel(image: &[u8], x: i32, y: i32) -> f32 {
    let inside = 0..SIDE as i32;
    if !inside.contains(&x) || !inside.contains(&y) {
        return 0.0;
    }
    f32::from(image[y as usize * SIDE + x as usize])
}
