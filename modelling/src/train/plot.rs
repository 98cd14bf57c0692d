//! Diagrams of a run, each as SVG and as PNG.

use std::fmt::Display;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::{Epoch, Error, Metrics, write_file};
use crate::torch::CLASSES;

const FONT: &str = "sans-serif";
const TRAINING: RGBColor = RGBColor(0x7a, 0x8b, 0x99);
const VALIDATION: RGBColor = RGBColor(0x0b, 0x6e, 0x99);
const BEST: RGBColor = RGBColor(0xc8, 0x50, 0x1e);
const TEXT: RGBColor = RGBColor(0x22, 0x2b, 0x33);

const CURVES: (u32, u32) = (1600, 640);
const CONFUSION: (u32, u32) = (1040, 1010);

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a diagram of a run into `PATH.svg` and `PATH.png`.
pub(super) type Draw = fn(&Metrics, &Path) -> Result<(), Error>;

/// Draws loss and accuracy of every epoch into `PATH.svg` and `PATH.png`.
pub fn curves(metrics: &Metrics, path: &Path) -> Result<(), Error> {
    let svg = path.with_extension("svg");
    to_svg(CURVES, |area| draw_curves(area, metrics), &svg)?;
    to_png(CURVES, |area| draw_curves(area, metrics), &path.with_extension("png"))
}

/// Draws how often each class was taken for each into `PATH.svg` and `PATH.png`.
pub fn confusion(metrics: &Metrics, path: &Path) -> Result<(), Error> {
    let svg = path.with_extension("svg");
    to_svg(CONFUSION, |area| draw_confusion(area, metrics), &svg)?;
    to_png(CONFUSION, |area| draw_confusion(area, metrics), &path.with_extension("png"))
}

fn failed(path: &Path, error: impl Display) -> Error {
    Error::Plot { path: path.to_owned(), reason: error.to_string() }
}

fn to_svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
    path: &Path,
) -> Result<(), Error> {
    bring_font(path)?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?)).map_err(|error| failed(path, error))?;
    }
    write_file(path, text.as_bytes())
}

fn to_png(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<BitMapBackend<'_>, Shift>) -> Drawn,
    path: &Path,
) -> Result<(), Error> {
    bring_font(path)?;
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?)).map_err(|error| failed(path, error))?;
    }
    let image = RgbImage::from_raw(size.0, size.1, pixels)
        .ok_or_else(|| failed(path, "the buffer has another size"))?;
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|error| failed(path, error))?;
    write_file(path, png.get_ref())
}

/// Brings a font along, so that diagrams look the same on every machine.
fn bring_font(path: &Path) -> Result<(), Error> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| failed(path, "the font is damaged"))
}

fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT)
}

fn draw_curves<B: DrawingBackend>(area: &DrawingArea<B, Shift>, metrics: &Metrics) -> Drawn
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(CURVES.0 / 2);
    let epochs = &metrics.epochs;
    let losses = |epoch: &Epoch| (epoch.training_loss, epoch.validation_loss);
    let best = metrics.best_epoch;
    draw_curve(&left, "Loss", "mean cross-entropy", epochs, best, losses)?;
    let accuracies =
        |epoch: &Epoch| (100.0 * epoch.training_accuracy, 100.0 * epoch.validation_accuracy);
    draw_curve(&right, "Accuracy", "% of images", epochs, best, accuracies)
}

/// One diagram with a line for training, a line for validation, and a mark at the best epoch.
fn draw_curve<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    unit: &str,
    epochs: &[Epoch],
    best: usize,
    values: impl Fn(&Epoch) -> (f64, f64),
) -> Drawn
where
    B::ErrorType: 'static,
{
    let points: Vec<(f64, f64, f64)> =
        epochs.iter().map(|epoch| (epoch.epoch as f64, values(epoch).0, values(epoch).1)).collect();
    let range = range(points.iter().flat_map(|(_, training, validation)| [*training, *validation]));
    let last = (epochs.len() as f64).max(2.0);
    // As many decimals as tell the labels apart, and the same number on each.
    let decimals = (1.0 - (range.end - range.start).log10().floor()).clamp(0.0, 6.0) as usize;
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(36))
        .margin(24)
        .x_label_area_size(64)
        .y_label_area_size(96)
        .build_cartesian_2d(0.6..last + 0.4, range)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(unit)
        .axis_desc_style(text(26))
        .label_style(text(24))
        .x_labels(epochs.len().clamp(2, 10))
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.1))
        .draw()?;
    let training = points.iter().map(|(epoch, training, _)| (*epoch, *training));
    let validation = points.iter().map(|(epoch, _, validation)| (*epoch, *validation));
    for (series, colour, name) in [
        (training.collect::<Vec<_>>(), TRAINING, "training"),
        (validation.clone().collect(), VALIDATION, "validation"),
    ] {
        chart
            .draw_series(LineSeries::new(series, colour.filled().stroke_width(4)).point_size(6))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 32, y)], colour.stroke_width(4)));
    }
    let mark = validation.filter(|(epoch, _)| *epoch == best as f64);
    chart
        .draw_series(mark.map(|point| Circle::new(point, 8, BEST.filled())))?
        .label(format!("best epoch ({best})"))
        .legend(|(x, y)| Circle::new((x + 16, y), 8, BEST.filled()));
    let position = if title == "Loss" {
        SeriesLabelPosition::UpperRight
    } else {
        SeriesLabelPosition::LowerRight
    };
    chart
        .configure_series_labels()
        .position(position)
        .margin(24)
        .legend_area_size(48)
        .label_font(text(26))
        .background_style(WHITE.mix(0.85))
        .draw()?;
    Ok(())
}

/// From the smallest to the largest value, with some air; a single value gets air on both sides.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.0..1.0;
    }
    let air = ((high - low) * 0.06).max(1e-3);
    low - air..high + air
}

/// Where the grid of the confusion matrix lies, and the side of its cells.
const GRID: (i32, i32) = (180, 110);
const CELL: i32 = 80;

fn draw_confusion<B: DrawingBackend>(area: &DrawingArea<B, Shift>, metrics: &Metrics) -> Drawn
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let centre = Pos::new(HPos::Center, VPos::Center);
    let confusion = &metrics.confusion;
    let middle = GRID.0 + CELL * CLASSES as i32 / 2;
    let title = format!(
        "{} of {} test images are right: {:.2} %",
        confusion.correct(),
        confusion.total(),
        confusion.accuracy() * 100.0
    );
    area.draw_text(&title, &text(36).pos(centre), (middle, 50))?;
    let bottom = GRID.1 + CELL * CLASSES as i32;
    area.draw_text("predicted", &text(28).pos(centre), (middle, bottom + 64))?;
    let sideways = text(28).pos(centre).transform(FontTransform::Rotate270);
    area.draw_text("true", &sideways, (36, GRID.1 + CELL * CLASSES as i32 / 2))?;
    for (class, name) in metrics.classes.iter().enumerate() {
        let offset = CELL * class as i32 + CELL / 2;
        let beside = text(if name.len() > 1 { 20 } else { 28 });
        let right = Pos::new(HPos::Right, VPos::Center);
        area.draw_text(name, &beside.pos(right), (GRID.0 - 14, GRID.1 + offset))?;
        let below = text(if name.len() > 1 { 15 } else { 28 });
        area.draw_text(name, &below.pos(centre), (GRID.0 + offset, bottom + 24))?;
    }
    for (row, counts) in confusion.counts.iter().enumerate() {
        let total = counts.iter().sum::<u64>().max(1);
        for (column, count) in counts.iter().enumerate() {
            draw_cell(area, (row, column), *count, total)?;
        }
    }
    Ok(())
}

/// The colour grows with the logarithm, or else the rare mistakes would not be seen beside what is right.
fn draw_cell<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (row, column): (usize, usize),
    count: u64,
    total: u64,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let (x, y) = (GRID.0 + CELL * column as i32, GRID.1 + CELL * row as i32);
    let share = (count as f64).ln_1p() / (total as f64).ln_1p();
    let colour = if row == column { VALIDATION } else { BEST };
    let inner = [(x + 1, y + 1), (x + CELL - 1, y + CELL - 1)];
    area.draw(&Rectangle::new(inner, RGBColor(0xf4, 0xf6, 0xf8).filled()))?;
    area.draw(&Rectangle::new(inner, colour.mix(share * 0.9).filled()))?;
    if count > 0 {
        let ink = if share > 0.55 { WHITE } else { TEXT };
        let style = (FONT, 26).into_font().color(&ink).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw_text(&count.to_string(), &style, (x + CELL / 2, y + CELL / 2))?;
    }
    Ok(())
}
