//! From grey pixels of any size to the form of MNIST: a light digit on black, fitted to 20x20, its centre of mass in the middle of 28x28.

use image::GrayImage;

use super::{PIXELS, SIDE};

/// The box into which the ink is fitted, in pixels.
const BOX: usize = 20;

/// Less contrast than this, in grey levels, is an empty image.
const CONTRAST_MIN: u8 = 12;

/// The part of the full contrast from which on a pixel counts as ink when the ink's extent is sought.
const INK: f32 = 0.3;

/// Ink that hangs together is a speck if there is this many times as much of it in another place.
const SPECK: usize = 50;

/// Writes the digit that is drawn in `grey`; an image without contrast comes out black.
pub(super) fn normalise(grey: &GrayImage, pixels: &mut [f32; PIXELS]) {
    pixels.fill(0.0);
    let Some(levels) = Levels::of(grey) else { return };
    let Some(extent) = Extent::of(grey, &levels) else { return };
    let fitted = fit(grey, &levels, &extent);
    place(&fitted, pixels);
}

/// How much ink each grey level stands for, 0 to 1.
struct Levels([f32; 256]);

impl Levels {
    /// Takes the border as background, and as ink what differs from it in the direction in which there is more of it.
    fn of(grey: &GrayImage) -> Option<Self> {
        let background = background(grey);
        let mut counts = [0u32; 256];
        grey.as_raw().iter().for_each(|level| counts[usize::from(*level)] += 1);
        let darker = difference(&counts, |level| background.checked_sub(level));
        let lighter = difference(&counts, |level| level.checked_sub(background));
        let (ink, dark) =
            if darker.mass > lighter.mass { (darker, true) } else { (lighter, false) };
        if ink.peak < CONTRAST_MIN {
            return None;
        }
        // What is near the background is noise or paper; what is near the peak is ink.
        let (floor, ceiling) = (0.12 * f32::from(ink.peak), 0.88 * f32::from(ink.peak));
        let mut levels = [0.0; 256];
        for (level, value) in (0u8..=255).zip(&mut levels) {
            let distance = if dark {
                background.saturating_sub(level)
            } else {
                level.saturating_sub(background)
            };
            *value = ((f32::from(distance) - floor) / (ceiling - floor)).clamp(0.0, 1.0);
        }
        Some(Self(levels))
    }

    fn ink(&self, level: u8) -> f32 {
        self.0[usize::from(level)]
    }
}

/// The median of the outermost pixels.
fn background(grey: &GrayImage) -> u8 {
    let width = grey.width() as usize;
    let raw = grey.as_raw();
    let rows = raw.chunks_exact(width);
    let sides = rows.flat_map(|row| [row[0], row[width - 1]]);
    let mut border: Vec<u8> =
        sides.chain(raw[..width].iter().chain(&raw[raw.len() - width..]).copied()).collect();
    let middle = border.len() / 2;
    *border.select_nth_unstable(middle).1
}

/// How far the pixels on one side of the background are from it.
struct Difference {
    /// The sum of all squared distances, in grey levels. Squares make ink weigh more than the noise of a large background.
    mass: u64,
    /// The distance that few of the pixels that have mass exceed.
    peak: u8,
}

fn difference(counts: &[u32; 256], distance: impl Fn(u8) -> Option<u8>) -> Difference {
    let mut masses = [0; 256];
    for (level, count) in (0..=255).zip(counts) {
        if let Some(distance) = distance(level) {
            masses[usize::from(distance)] = u64::from(distance).pow(2) * u64::from(*count);
        }
    }
    let mass = masses.iter().sum();
    let mut beyond = 0;
    let peak = (1..=255).rev().find(|distance| {
        beyond += masses[usize::from(*distance)];
        mass > 0 && beyond * 20 >= mass
    });
    Difference { mass, peak: peak.unwrap_or(0) }
}

/// A rectangle, ends excluded.
#[derive(Clone, Copy)]
struct Extent {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Extent {
    /// The rectangle that holds the ink. Specks of dust or noise should not widen it, thin strokes have to: what counts is how much ink
    /// hangs together.
    fn of(grey: &GrayImage, levels: &Levels) -> Option<Self> {
        let spots = spots(grey, levels);
        let largest = spots.iter().map(|spot| spot.pixels).max()?;
        let drawn = spots.iter().filter(|spot| spot.pixels.saturating_mul(SPECK) >= largest);
        drawn.map(|spot| spot.extent).reduce(Self::union)
    }

    fn pixel(column: usize, row: usize) -> Self {
        Self { left: column, right: column + 1, top: row, bottom: row + 1 }
    }

    fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            right: self.right.max(other.right),
            top: self.top.min(other.top),
            bottom: self.bottom.max(other.bottom),
        }
    }

    fn width(&self) -> usize {
        self.right - self.left
    }

    fn height(&self) -> usize {
        self.bottom - self.top
    }
}

/// Ink that hangs together.
struct Spot {
    pixels: usize,
    extent: Extent,
}

/// All ink, each pixel in the one spot that it touches by a side or a corner.
fn spots(grey: &GrayImage, levels: &Levels) -> Vec<Spot> {
    let (width, height) = (grey.width() as usize, grey.height() as usize);
    let mut ink: Vec<bool> = grey.as_raw().iter().map(|level| levels.ink(*level) > INK).collect();
    let mut spots = Vec::new();
    let mut pending = Vec::new();
    for start in 0..ink.len() {
        if !std::mem::take(&mut ink[start]) {
            continue;
        }
        let mut spot = Spot { pixels: 0, extent: Extent::pixel(start % width, start / width) };
        pending.push(start);
        while let Some(place) = pending.pop() {
            let (column, row) = (place % width, place / width);
            spot.pixels += 1;
            spot.extent = spot.extent.union(Extent::pixel(column, row));
            for row in row.saturating_sub(1)..(row + 2).min(height) {
                for column in column.saturating_sub(1)..(column + 2).min(width) {
                    let place = row * width + column;
                    if std::mem::take(&mut ink[place]) {
                        pending.push(place);
                    }
                }
            }
        }
        spots.push(spot);
    }
    spots
}

/// An image of at most 20x20.
struct Fitted {
    width: usize,
    height: usize,
    ink: Vec<f32>,
}

/// Scales the extent so that its longer side is 20 pixels, each an average of what it covers.
fn fit(grey: &GrayImage, levels: &Levels, extent: &Extent) -> Fitted {
    let longer = extent.width().max(extent.height()) as f32;
    let scaled =
        |length: usize| ((length * BOX) as f32 / longer).round().clamp(1.0, BOX as f32) as usize;
    let (width, height) = (scaled(extent.width()), scaled(extent.height()));
    let across = Filter::new(extent.width(), width);
    let down = Filter::new(extent.height(), height);
    let mut ink = vec![0.0; width * height];
    let mut line = vec![0.0; extent.width()];
    let mut narrow = vec![0.0; width];
    let stride = grey.width() as usize;
    for (row, pixels) in
        grey.as_raw().chunks_exact(stride).skip(extent.top).take(extent.height()).enumerate()
    {
        line.iter_mut()
            .zip(&pixels[extent.left..extent.right])
            .for_each(|(ink, level)| *ink = levels.ink(*level));
        across.apply(&line, &mut narrow);
        for (target, weight) in down.targets(row) {
            let line = &mut ink[target * width..][..width];
            line.iter_mut().zip(&narrow).for_each(|(ink, part)| *ink += weight * part);
        }
    }
    let peak = ink.iter().copied().fold(0.0, f32::max).max(f32::MIN_POSITIVE);
    ink.iter_mut().for_each(|ink| *ink /= peak);
    Fitted { width, height, ink }
}

/// The weights with which source pixels enter target pixels, along one axis.
struct Filter {
    /// For each target, the first source pixel and the weights from there on; they add up to 1.
    windows: Vec<(usize, Vec<f32>)>,
}

impl Filter {
    /// A triangle as wide as two target pixels, or two source pixels where the image grows.
    fn new(source: usize, target: usize) -> Self {
        let scale = source as f32 / target as f32;
        let radius = scale.max(1.0);
        let window = |index: usize| {
            let centre = (index as f32 + 0.5) * scale;
            let first = (centre - radius).floor().max(0.0) as usize;
            let end = ((centre + radius).ceil() as usize).min(source);
            let weight =
                |pixel: usize| (1.0 - (pixel as f32 + 0.5 - centre).abs() / radius).max(0.0);
            let mut weights: Vec<f32> = (first..end).map(weight).collect();
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            (first, weights)
        };
        Self { windows: (0..target).map(window).collect() }
    }

    fn apply(&self, source: &[f32], target: &mut [f32]) {
        for (target, (first, weights)) in target.iter_mut().zip(&self.windows) {
            *target =
                source[*first..].iter().zip(weights).map(|(pixel, weight)| pixel * weight).sum();
        }
    }

    /// The target pixels that a source pixel enters, with its weights.
    fn targets(&self, pixel: usize) -> impl Iterator<Item = (usize, f32)> {
        let weight = move |(first, weights): &(usize, Vec<f32>)| {
            Some(*weights.get(pixel.checked_sub(*first)?)?)
        };
        self.windows
            .iter()
            .enumerate()
            .filter_map(move |(target, window)| Some((target, weight(window)?)))
    }
}

/// Puts the centre of mass into the middle, as far as nothing is cut off.
fn place(fitted: &Fitted, pixels: &mut [f32; PIXELS]) {
    let (mut mass, mut across, mut down) = (0.0, 0.0, 0.0);
    for (row, line) in fitted.ink.chunks_exact(fitted.width).enumerate() {
        for (column, ink) in line.iter().enumerate() {
            mass += ink;
            across += ink * (column as f32 + 0.5);
            down += ink * (row as f32 + 0.5);
        }
    }
    let offset = |moment: f32, length: usize| {
        let offset = (SIDE as f32 / 2.0 - moment / mass).round();
        offset.clamp(0.0, (SIDE - length) as f32) as usize
    };
    let (left, top) = (offset(across, fitted.width), offset(down, fitted.height));
    for (row, line) in fitted.ink.chunks_exact(fitted.width).enumerate() {
        pixels[(top + row) * SIDE + left..][..fitted.width].copy_from_slice(line);
    }
}
