//! Trains the CNN and writes it in every format that Forebay serves.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use modelling::Labels;
use modelling::train::{self, BASE_URLS, Dataset, Distortion, Error, Progress, Settings};

/// Train the CNN on MNIST or Fashion-MNIST.
///
/// 54,000 images are for training, 6,000 for validation and 10,000 for the final measurement. Training ends when the validation loss has not improved
/// for --patience epochs, and the weights of the best epoch are kept. Ctrl-C ends it early and keeps the best so far.
///
/// Writes into --output: NAME.safetensors (runtime torch), NAME.onnx and NAME.int8.onnx (runtime onnx), metrics.json, and the diagrams
/// curves and confusion as SVG and PNG. The same seed, data and threads give the same weights.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// What to train on: mnist (digits) or fashion-mnist (clothing)
    #[arg(long, default_value = "mnist")]
    dataset: Labels,

    /// Folder of the four IDX files, plain or .gz; without it FOREBAY_DATA/DATASET is taken if it exists, else they are downloaded once
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Where to download from, instead of where the dataset is published
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,

    /// Folder for what is written [default: models/NAME]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Name of the model and of its files [default: DATASET-cnn]
    #[arg(long)]
    name: Option<String>,

    /// Number from which every random choice follows
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Most epochs to train
    #[arg(long, default_value_t = Settings::default().epochs_max)]
    epochs: usize,

    /// Images in a batch
    #[arg(long, default_value_t = Settings::default().batch_size)]
    batch_size: usize,

    /// Step of the optimiser, Adam
    #[arg(long, default_value_t = Settings::default().learning_rate)]
    learning_rate: f64,

    /// Epochs without a better validation loss after which training ends
    #[arg(long, default_value_t = Settings::default().patience)]
    patience: usize,

    /// Threads that compute
    #[arg(long, default_value_t = Settings::default().threads)]
    threads: usize,

    /// Train on the images as they are, not slightly rotated, scaled, slanted and shifted
    #[arg(long)]
    no_distortion: bool,
}

impl Arguments {
    fn settings(&self) -> Settings {
        Settings {
            seed: self.seed,
            epochs_max: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            patience: self.patience,
            threads: self.threads,
            distortion: if self.no_distortion { Distortion::NONE } else { Distortion::LIGHT },
        }
    }

    fn open_dataset(&self, progress: &mut Progress) -> Result<Dataset, Error> {
        let local = env::var_os("FOREBAY_DATA")
            .map(|folder| PathBuf::from(folder).join(self.dataset.name()))
            .filter(|folder| self.base_url.is_none() && folder.is_dir());
        if let Some(folder) = self.data.clone().or(local) {
            return Dataset::open(&folder, self.dataset);
        }
        let variable =
            |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = train::cache_folder(
            variable("FOREBAY_CACHE"),
            variable("XDG_CACHE_HOME"),
            variable("HOME"),
        );
        let folder = cache.join(self.dataset.name());
        let published = BASE_URLS.iter().find(|(labels, _)| *labels == self.dataset);
        let published = published.map_or("", |(_, url)| *url);
        train::fetch(
            self.dataset,
            self.base_url.as_deref().unwrap_or(published),
            &folder,
            progress,
        )?;
        Dataset::open(&folder, self.dataset)
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let asked = cancelled.clone();
    let handler = ctrlc::set_handler(move || {
        // Who asks twice does not want to wait for the best so far to be written.
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if let Err(error) = handler {
        eprintln!("ctrl-c will end training without a result: {error}");
    }
    let mut progress = Progress::new(arguments.epochs, cancelled);
    let dataset = arguments.open_dataset(&mut progress)?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("{}-cnn", arguments.dataset));
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from("models").join(&name));
    train::run(&dataset, &arguments.settings(), &output, &name, &mut progress)?;
    drop(progress);
    println!("{}", output.display());
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("train: {error}");
            ExitCode::FAILURE
        }
    }
}
