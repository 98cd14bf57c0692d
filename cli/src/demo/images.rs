//! Which images a run publishes.

use std::fmt;
use std::path::{Path, PathBuf};

use indicatif::HumanCount;
use model_server::process::{Failure, Reason};
use modelling::idx;

use super::Arguments;

const NAMES: [&str; 2] = ["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"];

/// The images of a run.
#[derive(Debug)]
pub(super) struct Images {
    samples: u64,
    seed: u64,
    broken: u64,
    mnist: Found,
}

/// MNIST's test images, where they are.
#[derive(Debug)]
enum Found {
    Here { file: PathBuf, count: u64 },
    NotIn(PathBuf),
}

impl Images {
    /// Looks for MNIST; fails where it was named and is not there, or is damaged.
    pub(super) fn find(arguments: &Arguments) -> Result<Self, Failure> {
        let mnist = match &arguments.mnist {
            Some(path) => match locate(path) {
                Some(file) => Found::open(file)?,
                None => {
                    let message = format!("{path:?} is not, and does not hold, {}", NAMES[0]);
                    return Err(Failure::new(Reason::Input, message));
                }
            },
            None => {
                let data = std::env::var_os("FOREBAY_DATA").filter(|value| !value.is_empty());
                let data = data.map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
                locate(&data).map_or_else(|| Ok(Found::NotIn(data.join("mnist"))), Found::open)?
            }
        };
        let Arguments { samples, seed, broken, .. } = *arguments;
        Ok(Self { samples, seed, broken, mnist })
    }

    /// How many messages app1 publishes, and the broken ones.
    pub(super) fn total(&self) -> u64 {
        let mnist = match &self.mnist {
            Found::Here { count, .. } => *count,
            Found::NotIn(_) => 0,
        };
        self.samples + self.broken + mnist
    }

    /// How many broken inputs there are among them.
    pub(super) fn broken(&self) -> u64 {
        self.broken
    }

    /// What app1 is told.
    pub(super) fn arguments(&self, run: &str) -> Vec<String> {
        let (samples, seed) = (self.samples.to_string(), self.seed.to_string());
        let arguments = ["--run-id", run, "--samples", &samples, "--seed", &seed];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        if let Found::Here { file, .. } = &self.mnist {
            arguments.push(file.to_string_lossy().into_owned());
        }
        arguments
    }
}

impl Found {
    fn open(file: PathBuf) -> Result<Self, Failure> {
        let images = idx::Images::open(&file).map_err(|error| {
            Failure::new(Reason::Input, "cannot read MNIST's test images").because(error)
        })?;
        Ok(Self::Here { file, count: images.len() as u64 })
    }
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} drawn digits (seed {})", HumanCount(self.samples), self.seed)?;
        if self.broken > 0 {
            write!(f, ", {} broken inputs", HumanCount(self.broken))?;
        }
        match &self.mnist {
            Found::Here { file, count } => {
                write!(f, ", {} images of MNIST ({})", HumanCount(*count), file.display())
            }
            Found::NotIn(looked) => {
                let looked = looked.display();
                write!(f, "; MNIST is not in {looked}, --mnist PATH adds its test images")
            }
        }
    }
}

/// The file itself, or the one in a directory or its subdirectory `mnist`.
fn locate(path: &Path) -> Option<PathBuf> {
    let directories = [path.to_owned(), path.join("mnist")];
    let inside = directories.iter().flat_map(|directory| NAMES.map(|name| directory.join(name)));
    std::iter::once(path.to_owned()).chain(inside).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnist_is_found_as_a_file_in_its_directory_and_above_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(locate(folder.path()), None);
        let directory = folder.path().join("mnist");
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join(NAMES[1]);
        std::fs::write(&file, "").unwrap();
        for path in [folder.path(), directory.as_path(), file.as_path()] {
            assert_eq!(locate(path).as_deref(), Some(file.as_path()));
        }
    }

    #[test]
    fn a_named_mnist_that_is_missing_or_damaged_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("images");
        std::fs::write(&damaged, "no images").unwrap();
        for path in [folder.path().join("none"), damaged] {
            let arguments = Arguments { mnist: Some(path), ..Arguments::default() };
            assert_eq!(Images::find(&arguments).unwrap_err().reason(), Reason::Input);
        }
    }

    #[test]
    fn app1_is_told_everything_but_the_broken_inputs() {
        let mnist = Found::NotIn("x".into());
        let images = Images { samples: 9, seed: 7, broken: 4, mnist };
        let arguments = images.arguments("run");
        assert_eq!(arguments, ["--run-id", "run", "--samples", "9", "--seed", "7"]);
        assert_eq!(images.total(), 13);
        let mnist = Found::Here { file: "t10k".into(), count: 10 };
        let images = Images { mnist, ..images };
        assert_eq!(images.arguments("run")[6], "t10k");
        assert_eq!(images.total(), 23);
    }
}
