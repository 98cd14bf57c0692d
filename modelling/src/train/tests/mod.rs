mod downloads;
mod fits;
mod outputs;
mod stopping;

use crate::torch::PIXELS;

use super::Examples;

/// Ten kinds of images, each a bar at a place of its own over a varying background: a CNN tells them apart within an epoch or two.
pub(super) fn bars(count: usize) -> Examples {
    let labels: Vec<u8> = (0..count).map(|index| (index % 10) as u8).collect();
    let pixel = |index: usize, label: u8, pixel: usize| {
        let (row, column) = (pixel / 28, pixel % 28);
        let bar = usize::from(label) % 5 * 5 + 3;
        let place = if label < 5 { row } else { column };
        let background = ((index * 31 + pixel * 17) % 40) as u8;
        if (bar..bar + 2).contains(&place) { 200 + background } else { background }
    };
    let pixels = labels
        .iter()
        .enumerate()
        .flat_map(|(index, label)| (0..PIXELS).map(move |place| pixel(index, *label, place)))
        .collect();
    Examples::new(pixels, labels).unwrap()
}
