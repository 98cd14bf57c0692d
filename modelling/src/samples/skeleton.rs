//! The paths that a pen takes for each digit, as people's hands vary them.

use rand::Rng;
use rand::seq::IndexedRandom;

/// A point; the digit fills about 0 to 1 in both directions, y downwards.
pub(super) type Point = [f32; 2];

/// What the pen draws without being lifted, as short straight lines.
pub(super) type Stroke = Vec<Point>;

/// Through how many points a curve goes between two of its control points.
const STEPS: usize = 10;

/// The strokes of a digit, drawn by some hand.
pub(super) fn strokes(digit: u8, random: &mut impl Rng) -> Vec<Stroke> {
    let shape = shapes(digit).choose(random).copied().unwrap_or_default();
    let mut hand = Hand::random(random);
    shape.iter().map(|curve| hand.draw(curve, random)).collect()
}

/// How somebody writes: the same for all strokes of a digit.
struct Hand {
    unsteadiness: f32,
    slant: f32,
    rotation: f32,
    narrowness: f32,
    last: Option<(Point, Point)>,
}

impl Hand {
    fn random(random: &mut impl Rng) -> Self {
        Self {
            unsteadiness: random.random_range(0.005..0.03),
            slant: random.random_range(-0.1..0.35),
            rotation: random.random_range(-0.15..0.15),
            narrowness: random.random_range(0.55..0.85),
            last: None,
        }
    }

    /// A smooth path near the control points.
    fn draw(&mut self, curve: &[Point], random: &mut impl Rng) -> Stroke {
        let near: Vec<Point> = curve.iter().map(|point| self.near(*point, random)).collect();
        smooth(&near).into_iter().map(|point| self.lean(point)).collect()
    }

    /// A point beside `point`; a stroke that starts where the last one ended still does.
    fn near(&mut self, point: Point, random: &mut impl Rng) -> Point {
        if let Some((_, moved)) = self.last.filter(|(last, _)| *last == point) {
            return moved;
        }
        let mut offset =
            || (random.random::<f32>() + random.random::<f32>() - 1.0) * 2.0 * self.unsteadiness;
        let moved = [point[0] + offset(), point[1] + offset()];
        self.last = Some((point, moved));
        moved
    }

    fn lean(&self, [x, y]: Point) -> Point {
        let (x, y) = ((x - 0.5) * self.narrowness - self.slant * (y - 0.5), y - 0.5);
        let (sin, cos) = self.rotation.sin_cos();
        [x * cos - y * sin + 0.5, x * sin + y * cos + 0.5]
    }
}

/// A Catmull-Rom spline: it goes through its control points, two of which make a straight line.
fn smooth(points: &[Point]) -> Stroke {
    let at = |index: usize| points[index.clamp(1, points.len()) - 1];
    let mut stroke = vec![at(1)];
    for index in 1..points.len() {
        let [before, start, end, after] = [at(index - 1), at(index), at(index + 1), at(index + 2)];
        for step in 1..=STEPS {
            let t = step as f32 / STEPS as f32;
            stroke.push(
                [0, 1].map(|axis| spline([before[axis], start[axis], end[axis], after[axis]], t)),
            );
        }
    }
    stroke
}

fn spline([before, start, end, after]: [f32; 4], t: f32) -> f32 {
    let linear = end - before;
    let square = 2.0 * before - 5.0 * start + 4.0 * end - after;
    let cube = 3.0 * (start - end) + after - before;
    start + 0.5 * t * (linear + t * (square + t * cube))
}

type Shape = &'static [&'static [Point]];

/// The ways in which people write a digit, each as curves by their control points.
fn shapes(digit: u8) -> &'static [Shape] {
    match digit {
        0 => ZERO,
        1 => ONE,
        2 => TWO,
        3 => THREE,
        4 => FOUR,
        5 => FIVE,
        6 => SIX,
        7 => SEVEN,
        8 => EIGHT,
        _ => NINE,
    }
}

const ZERO: &[Shape] = &[
    &[&[
        [0.5, 0.0],
        [0.16, 0.2],
        [0.05, 0.55],
        [0.25, 0.93],
        [0.6, 0.97],
        [0.92, 0.65],
        [0.88, 0.25],
        [0.5, 0.0],
    ]],
    &[&[
        [0.62, 0.02],
        [0.3, 0.08],
        [0.08, 0.4],
        [0.12, 0.78],
        [0.45, 1.0],
        [0.82, 0.82],
        [0.94, 0.4],
        [0.72, 0.08],
        [0.5, 0.05],
    ]],
];

const ONE: &[Shape] = &[
    &[&[[0.5, 0.0], [0.5, 1.0]]],
    &[&[[0.52, 0.0], [0.49, 0.5], [0.5, 1.0]]],
    &[&[[0.3, 0.2], [0.53, 0.0]], &[[0.53, 0.0], [0.5, 1.0]]],
];

const TWO: &[Shape] = &[
    &[
        &[[0.12, 0.25], [0.32, 0.03], [0.7, 0.04], [0.86, 0.28], [0.62, 0.6], [0.1, 0.97]],
        &[[0.1, 0.97], [0.95, 0.95]],
    ],
    &[&[
        [0.1, 0.2],
        [0.4, 0.0],
        [0.8, 0.15],
        [0.78, 0.45],
        [0.45, 0.75],
        [0.1, 0.95],
        [0.12, 0.78],
        [0.35, 0.8],
        [0.65, 0.95],
        [0.95, 0.9],
    ]],
];

const THREE: &[Shape] = &[
    &[
        &[[0.12, 0.12], [0.45, 0.0], [0.83, 0.15], [0.76, 0.38], [0.42, 0.47]],
        &[[0.42, 0.47], [0.82, 0.58], [0.88, 0.82], [0.5, 1.0], [0.08, 0.88]],
    ],
    &[
        &[[0.1, 0.06], [0.6, 0.0], [0.85, 0.2], [0.65, 0.42], [0.38, 0.48]],
        &[[0.38, 0.48], [0.75, 0.52], [0.92, 0.74], [0.68, 0.97], [0.1, 0.95]],
    ],
];

const FOUR: &[Shape] = &[
    &[&[[0.2, 0.02], [0.08, 0.55]], &[[0.08, 0.55], [0.92, 0.52]], &[[0.8, 0.03], [0.72, 1.0]]],
    &[
        &[[0.25, 0.0], [0.12, 0.35], [0.25, 0.55], [0.75, 0.46]],
        &[[0.82, 0.05], [0.76, 0.5], [0.72, 1.0]],
    ],
    &[&[[0.7, 0.0], [0.05, 0.62]], &[[0.05, 0.62], [0.98, 0.62]], &[[0.7, 0.0], [0.68, 1.0]]],
];

const FIVE: &[Shape] = &[
    &[
        &[[0.88, 0.02], [0.25, 0.02]],
        &[[0.25, 0.02], [0.16, 0.43]],
        &[[0.16, 0.43], [0.52, 0.36], [0.88, 0.6], [0.74, 0.92], [0.4, 1.0], [0.08, 0.9]],
    ],
    &[
        &[[0.28, 0.03], [0.2, 0.42]],
        &[[0.2, 0.42], [0.6, 0.42], [0.84, 0.68], [0.6, 0.97], [0.1, 0.95]],
        &[[0.28, 0.04], [0.9, 0.0]],
    ],
];

const SIX: &[Shape] = &[
    &[&[
        [0.75, 0.0],
        [0.35, 0.25],
        [0.1, 0.65],
        [0.25, 0.95],
        [0.6, 0.98],
        [0.82, 0.75],
        [0.6, 0.55],
        [0.28, 0.6],
        [0.13, 0.75],
    ]],
    &[&[
        [0.55, 0.0],
        [0.22, 0.35],
        [0.12, 0.75],
        [0.4, 1.0],
        [0.8, 0.9],
        [0.82, 0.65],
        [0.5, 0.55],
        [0.16, 0.75],
    ]],
];

const SEVEN: &[Shape] = &[
    &[&[[0.08, 0.06], [0.92, 0.03]], &[[0.92, 0.03], [0.58, 0.48], [0.38, 1.0]]],
    &[
        &[[0.08, 0.2], [0.12, 0.05]],
        &[[0.12, 0.05], [0.92, 0.05]],
        &[[0.92, 0.05], [0.65, 0.45], [0.5, 1.0]],
    ],
    &[
        &[[0.08, 0.05], [0.9, 0.05]],
        &[[0.9, 0.05], [0.6, 0.5], [0.4, 1.0]],
        &[[0.36, 0.5], [0.82, 0.48]],
    ],
];

const EIGHT: &[Shape] = &[
    &[&[
        [0.82, 0.12],
        [0.5, 0.0],
        [0.18, 0.15],
        [0.32, 0.4],
        [0.65, 0.56],
        [0.85, 0.78],
        [0.5, 1.0],
        [0.14, 0.8],
        [0.35, 0.56],
        [0.7, 0.38],
        [0.86, 0.2],
        [0.82, 0.12],
    ]],
    &[
        &[[0.5, 0.46], [0.2, 0.3], [0.3, 0.04], [0.68, 0.03], [0.8, 0.28], [0.5, 0.46]],
        &[[0.5, 0.46], [0.12, 0.68], [0.25, 0.97], [0.72, 0.97], [0.88, 0.68], [0.5, 0.46]],
    ],
];

const NINE: &[Shape] = &[
    &[
        &[
            [0.84, 0.18],
            [0.52, 0.0],
            [0.18, 0.16],
            [0.2, 0.42],
            [0.5, 0.5],
            [0.8, 0.34],
            [0.84, 0.18],
        ],
        &[[0.84, 0.18], [0.8, 0.55], [0.66, 1.0]],
    ],
    &[
        &[[0.82, 0.15], [0.45, 0.0], [0.15, 0.25], [0.35, 0.48], [0.7, 0.38], [0.82, 0.15]],
        &[[0.82, 0.15], [0.84, 0.55], [0.72, 0.9], [0.3, 0.98]],
    ],
];
