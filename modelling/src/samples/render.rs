//! Ink on paper: strokes become pixels, with smooth edges, colours and the noise of a camera.

use image::{Rgb, RgbImage};
use rand::Rng;

use super::skeleton::{Point, Stroke};

/// The least difference in brightness between ink and paper, of 255.
const CONTRAST_MIN: f32 = 90.0;

/// How an image looks, apart from the digit's shape.
pub(super) struct Style {
    width: u32,
    height: u32,
    /// The digit's height in pixels.
    size: f32,
    /// Where the digit's middle is, in pixels.
    centre: Point,
    /// Half the width of the pen, in pixels.
    radius: f32,
    /// How much the pen's width changes along a stroke, as a part of it.
    pressure: f32,
    ink: [f32; 3],
    paper: [f32; 3],
    /// How far noise moves a pixel at most, of 255.
    noise: f32,
}

impl Style {
    pub(super) fn random(random: &mut impl Rng) -> Self {
        // Small images are as common as large ones.
        let side = 24.0 * (400.0f32 / 24.0).powf(random.random());
        let mut length = || (side * random.random_range(0.85..1.18)).round().clamp(24.0, 400.0);
        let (width, height) = (length(), length());
        let size = width.min(height) * random.random_range(0.5..0.74);
        let mut middle =
            |length: f32| length / 2.0 + random.random_range(-0.1..0.1) * (length - size);
        let centre = [middle(width), middle(height)];
        let (ink, paper) = colours(random);
        Self {
            width: width as u32,
            height: height as u32,
            size,
            centre,
            radius: (size * random.random_range(0.035..0.075)).max(0.8),
            pressure: random.random_range(0.0..0.3),
            ink,
            paper,
            noise: if random.random_bool(0.5) { random.random_range(0.0..14.0) } else { 0.0 },
        }
    }

    fn place(&self, [x, y]: Point) -> Point {
        [self.centre[0] + (x - 0.5) * self.size, self.centre[1] + (y - 0.5) * self.size]
    }
}

/// Ink and paper that differ enough; half of the images are dark on light.
fn colours(random: &mut impl Rng) -> ([f32; 3], [f32; 3]) {
    let coloured = random.random_bool(0.6);
    loop {
        let levels = [random.random_range(0.0..110.0), random.random_range(150.0..255.0)];
        let [dark, light] = levels.map(|level| shade(level, coloured, random));
        if brightness(light) - brightness(dark) >= CONTRAST_MIN {
            return if random.random_bool(0.5) { (dark, light) } else { (light, dark) };
        }
    }
}

fn shade(level: f32, coloured: bool, random: &mut impl Rng) -> [f32; 3] {
    let spread = if coloured { 60.0 } else { 0.1 };
    [0; 3].map(|_| (level + random.random_range(-spread..spread)).clamp(0.0, 255.0))
}

fn brightness([red, green, blue]: [f32; 3]) -> f32 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// Draws strokes as a pen would.
pub(super) fn render(strokes: &[Stroke], style: &Style, random: &mut impl Rng) -> RgbImage {
    let mut coverage = vec![0.0f32; (style.width * style.height) as usize];
    for stroke in strokes {
        let phase = random.random_range(0.0..6.0);
        for (index, line) in stroke.windows(2).enumerate() {
            let radius =
                style.radius * (1.0 + style.pressure * (phase + index as f32 * 0.15).sin());
            cover(&mut coverage, style, [style.place(line[0]), style.place(line[1])], radius);
        }
    }
    let mut image = RgbImage::new(style.width, style.height);
    for (pixel, coverage) in image.pixels_mut().zip(coverage) {
        let noise =
            if style.noise > 0.0 { random.random_range(-style.noise..style.noise) } else { 0.0 };
        let mixed = [0, 1, 2]
            .map(|channel| style.paper[channel] * (1.0 - coverage) + style.ink[channel] * coverage);
        *pixel = Rgb(mixed.map(|value| (value + noise).round().clamp(0.0, 255.0) as u8));
    }
    image
}

/// Covers the pixels around a straight line, those at the edge in part.
fn cover(coverage: &mut [f32], style: &Style, line: [Point; 2], radius: f32) {
    let bounds = |axis: usize, length: u32| {
        let (low, high) = (line[0][axis].min(line[1][axis]), line[0][axis].max(line[1][axis]));
        let end = (high + radius + 1.0).ceil().clamp(0.0, length as f32);
        (low - radius - 1.0).floor().clamp(0.0, end) as usize..end as usize
    };
    for row in bounds(1, style.height) {
        for column in bounds(0, style.width) {
            let distance = distance([column as f32 + 0.5, row as f32 + 0.5], line);
            let pixel = &mut coverage[row * style.width as usize + column];
            *pixel = pixel.max((radius - distance + 0.5).clamp(0.0, 1.0));
        }
    }
}

/// From a point to the nearest point of a line.
fn distance(point: Point, [start, end]: [Point; 2]) -> f32 {
    let along = [end[0] - start[0], end[1] - start[1]];
    let away = [point[0] - start[0], point[1] - start[1]];
    let length = (along[0] * along[0] + along[1] * along[1]).max(f32::MIN_POSITIVE);
    let part = ((along[0] * away[0] + along[1] * away[1]) / length).clamp(0.0, 1.0);
    (away[0] - part * along[0]).hypot(away[1] - part * along[1])
}
