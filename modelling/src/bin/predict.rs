//! Says what digits image files show.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use modelling::labels::{self, Labels};
use modelling::preprocess::{self, Limits, PIXELS, SIDE};
use modelling::{Batch, Checkpoint, Error, Model, Options, Precision, Result, Runtime, Tensor};

/// Images that are predicted at once.
const BATCH: usize = 64;

/// From background to ink.
const SHADES: &[u8; 10] = b" .:-=+*#%@";

/// Says what digits image files show.
///
/// Reads PNG, JPEG, BMP, GIF, WebP, NumPy .npy (28x28) and raw 28x28 grey bytes, in any size and colour, and prints for each file the label
/// and how probable the model holds it to be. A file that can't be read or is no image is reported on the standard error, and the others go on.
#[derive(Parser)]
#[command(version, after_long_help = AFTER_HELP)]
struct Arguments {
    /// Image files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Model file: .onnx for runtime onnx, .safetensors for runtime torch [default: the trained CNN of this repository].
    #[arg(long, env = "FOREBAY_MODEL", value_name = "FILE")]
    model: Option<PathBuf>,

    /// What computes: onnx, or torch if it was compiled in.
    #[arg(long, default_value_t, value_name = "NAME")]
    runtime: Runtime,

    /// Arithmetic inside the model: fp32, bf16 (torch only), or int8 (onnx only, takes NAME.int8.onnx beside NAME.onnx).
    #[arg(long, default_value_t, value_name = "NAME")]
    precision: Precision,

    /// Threads that the model computes with.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    threads: usize,

    /// What the classes are called: mnist or fashion-mnist.
    #[arg(long, default_value_t, value_name = "NAME")]
    labels: Labels,

    /// ONNX Runtime's library [default: $ORT_DYLIB_PATH, else where scripts/fetch-onnxruntime puts it].
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,

    /// Print one JSON object a line instead of a table, failed files included.
    #[arg(long)]
    json: bool,

    /// Show also the 28x28 pixels that the model sees.
    #[arg(long, conflicts_with = "json")]
    explain: bool,

    /// Refuse images with more pixels than this.
    #[arg(long, default_value_t = Limits::default().pixels_max, value_name = "PIXELS")]
    pixels_max: u64,
}

const AFTER_HELP: &str = "\
Examples:
  predict five.png photo.jpg
  predict --explain five.png
  predict --json --precision int8 digits/*

Exit codes:
  0  every file was predicted
  1  some file failed; each is named on the standard error
  2  the command line is wrong
  3  the model could not be loaded or failed";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        // Whoever closed our output has seen enough.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("predict: {}", escape(&error.to_string()));
            ExitCode::from(3)
        }
    }
}

/// Predicts all files and returns how many failed.
fn run(arguments: &Arguments) -> Result<usize> {
    let mut model = load(arguments)?;
    let mut printer = Printer::new(arguments);
    printer.header()?;
    let mut failed = 0;
    for files in arguments.files.chunks(BATCH) {
        let images: Vec<_> = files.iter().map(|file| read(file, arguments)).collect();
        let good: Vec<&Pixels> = images.iter().flatten().map(|pixels| &**pixels).collect();
        let scores = predict(model.as_mut(), &good)?;
        let mut scores = scores.chunks_exact((scores.len() / good.len().max(1)).max(1));
        for (file, image) in files.iter().zip(&images) {
            match image {
                Ok(pixels) => printer.success(file, pixels, scores.next().unwrap_or_default())?,
                Err(error) => {
                    failed += 1;
                    printer.failure(file, error)?;
                }
            }
        }
    }
    Ok(failed)
}

type Pixels = [f32; PIXELS];

fn load(arguments: &Arguments) -> Result<Box<dyn Model>> {
    let options = Options {
        runtime: arguments.runtime,
        precision: arguments.precision,
        threads: arguments.threads,
        onnxruntime: arguments.onnxruntime.clone(),
    };
    let path = arguments.model.clone().unwrap_or_else(|| match arguments.runtime {
        Runtime::Onnx => "modelling/models/mnist-cnn/mnist-cnn.onnx".into(),
        Runtime::Torch => "modelling/models/mnist-cnn/mnist-cnn.safetensors".into(),
    });
    modelling::load(&Checkpoint::open(&options.file(&path))?, &options)
}

fn read(path: &Path, arguments: &Arguments) -> Result<Box<Pixels>> {
    let limits = Limits { pixels_max: arguments.pixels_max, ..Limits::default() };
    let mut payload = Vec::new();
    let file = File::open(path).map_err(|error| Error::from_io(path, error))?;
    // One byte more than the limit is enough to see that there are too many.
    file.take(limits.bytes_max as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(|error| Error::from_io(path, error))?;
    let mut pixels = Box::new([0.0; PIXELS]);
    preprocess::preprocess(&payload, None, &limits, &mut pixels)?;
    Ok(pixels)
}

/// The scores of all images, one after the other.
fn predict(model: &mut dyn Model, images: &[&Pixels]) -> Result<Vec<f32>> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let [input] = &model.signature().inputs[..] else {
        return Err(Error::Unsupported {
            reason: "the model takes more than one input".to_owned(),
        });
    };
    let name = input.name.clone();
    let pixels = images.iter().flat_map(|pixels| pixels.iter().copied()).collect();
    let tensor = Tensor::from_f32(vec![images.len(), 1, SIDE, SIDE], pixels)?;
    let outputs = model.predict(&Batch::single(name, tensor))?;
    outputs.iter().next().map_or_else(|| Ok(Vec::new()), |(_, scores)| scores.to_f32())
}

/// Writes results as a table or as JSON.
struct Printer<'a> {
    arguments: &'a Arguments,
    output: io::Stdout,
    width: usize,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        let names = arguments.files.iter().map(|file| name(file).chars().count());
        Self { arguments, output: io::stdout(), width: names.max().unwrap_or(0).max("file".len()) }
    }

    fn header(&mut self) -> Result<()> {
        let header =
            format!("{:<width$}  {:<11}  probability", "file", "label", width = self.width);
        if self.arguments.json { Ok(()) } else { self.line(&header) }
    }

    fn success(&mut self, file: &Path, pixels: &Pixels, scores: &[f32]) -> Result<()> {
        let Some((class, probability)) = labels::top(scores) else {
            return Err(Error::Unsupported { reason: "the model gives no scores".to_owned() });
        };
        let label = self.arguments.labels.get(class).unwrap_or("?");
        if self.arguments.json {
            let file = file.to_string_lossy();
            let object = serde_json::json!({ "file": file, "label": label, "class": class, "probability": probability });
            return self.line(&escape_json(&object.to_string()));
        }
        self.line(&format!(
            "{:<width$}  {label:<11}  {probability:.4}",
            name(file),
            width = self.width
        ))?;
        if self.arguments.explain { self.line(&explain(pixels)) } else { Ok(()) }
    }

    fn failure(&mut self, file: &Path, error: &Error) -> Result<()> {
        eprintln!("predict: {}: {}", name(file), escape(&error.to_string()));
        if self.arguments.json {
            let object =
                serde_json::json!({ "file": file.to_string_lossy(), "error": error.to_string() });
            return self.line(&escape_json(&object.to_string()));
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.output, "{text}")
            .map_err(|error| Error::from_io(Path::new("standard output"), error))
    }
}

fn name(file: &Path) -> String {
    escape(&file.to_string_lossy())
}

/// Makes what could steer a terminal visible: control characters, and those that turn the direction of writing.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        match steers(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
        escaped
    })
}

/// The same in JSON's notation; outside of strings JSON has no such characters.
fn escape_json(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        match steers(character) {
            true => write!(escaped, "\\u{:04x}", u32::from(character))
                .expect("a string takes all that is written"),
            false => escaped.push(character),
        }
        escaped
    })
}

fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The pixels as characters, two for each, so that the picture keeps its proportions.
fn explain(pixels: &Pixels) -> String {
    let shade = |pixel: &f32| {
        char::from(SHADES[(pixel * (SHADES.len() - 1) as f32).round() as usize % SHADES.len()])
    };
    let rows = pixels
        .chunks_exact(SIDE)
        .map(|row| row.iter().flat_map(|pixel| [shade(pixel); 2]).collect::<String>());
    let edge = "-".repeat(2 * SIDE);
    format!("+{edge}+\n{}+{edge}+", rows.map(|row| format!("|{row}|\n")).collect::<String>())
}
