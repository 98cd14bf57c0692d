//! Telling people how training goes: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::Epoch;

/// Is told how training and downloads go, and may ask training to end.
pub trait Observer {
    /// An epoch over so many images begins.
    fn start_epoch(&mut self, _epoch: usize, _images: usize) {}
    /// So many images of the epoch are done, with this mean loss and accuracy so far.
    fn batch(&mut self, _done: usize, _loss: f64, _accuracy: f64) {}
    /// An epoch is over.
    fn end_epoch(&mut self, _epoch: &Epoch) {}
    /// A download of a file begins or goes on; `total` is absent if the server did not tell.
    fn download(&mut self, _name: &str, _bytes: u64, _total: Option<u64>) {}
    /// Something worth a line happened.
    fn note(&mut self, _text: &str) {}
    /// Whether training is to end now.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// An observer that says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}

/// An observer that writes to standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: usize,
    downloading: String,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    /// For at most `epochs` epochs; training ends once `cancelled` is set.
    pub fn new(epochs: usize, cancelled: Arc<AtomicBool>) -> Self {
        let bar = stderr().is_terminal().then(|| ProgressBar::new(0));
        Self { bar, epochs, downloading: String::new(), cancelled }
    }

    fn restart(&self, length: u64, template: &str) {
        let Some(bar) = &self.bar else { return };
        // A template that can't be parsed leaves the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━╌"));
        }
        bar.reset();
        bar.set_length(length);
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

impl Observer for Progress {
    fn start_epoch(&mut self, epoch: usize, images: usize) {
        let template =
            format!("epoch {epoch:2} {{bar:30.cyan}} {{pos:>6}}/{{len}} {{msg}} {{eta}}");
        self.restart(images as u64, &template);
    }

    fn batch(&mut self, done: usize, loss: f64, accuracy: f64) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("loss {loss:.4} accuracy {:6.2} %", accuracy * 100.0));
            bar.set_position(done as u64);
        }
    }

    fn end_epoch(&mut self, epoch: &Epoch) {
        let Epoch { training_loss, validation_loss, .. } = epoch;
        self.line(&format!(
            "epoch {:2}/{}: training loss {training_loss:.4} accuracy {:6.2} %, validation loss {validation_loss:.4} accuracy {:6.2} %, {:.1} s",
            epoch.epoch,
            self.epochs,
            epoch.training_accuracy * 100.0,
            epoch.validation_accuracy * 100.0,
            epoch.seconds,
        ));
    }

    fn download(&mut self, name: &str, bytes: u64, total: Option<u64>) {
        if self.downloading != name {
            self.downloading = name.to_owned();
            let size = total.map_or("unknown size".to_owned(), |total| format!("{total} bytes"));
            self.line(&format!("downloading {name} ({size})"));
            self.restart(total.unwrap_or(0), "{bar:30.cyan} {bytes}/{total_bytes} {eta}");
        }
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
