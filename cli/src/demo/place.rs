//! The directory of a run and what lies in it from the start: the ini file, the model, a
//! picture to try.

use std::fs;
use std::path::{Path, PathBuf};

use broker::Timestamp;
use broker::config::{File, ProcessEnvironment};
use model_server::process::{Failure, Reason};
use model_server::settings::Settings;
use modelling::samples;

use super::Arguments;
use super::ini::Ini;
use crate::calendar::Moment;

/// What the demo runs on unless it is told otherwise, so that it works from anywhere.
const CONFIG: &str = include_str!("../../../config/embedded.ini");
const MODEL: &[u8] = include_bytes!("../../../modelling/models/mnist-cnn/mnist-cnn.onnx");
const MODEL_NAME: &str = "mnist-cnn.onnx";

/// Where a run lives.
#[derive(Debug)]
pub(super) struct Place {
    /// Its directory, absolute.
    pub(super) directory: PathBuf,
    /// Its ini file.
    pub(super) config: PathBuf,
    /// What that file says.
    pub(super) settings: Settings,
    /// A name of its own, for topics and ids.
    pub(super) run: String,
}

impl Place {
    /// Makes the directory and its files. Nothing is made where the configuration is wrong or
    /// the directory is in use.
    pub(super) fn make(arguments: &Arguments) -> Result<Self, Failure> {
        let moment = Moment::from_micros(Timestamp::now().as_micros()).compact();
        let directory = match &arguments.directory {
            Some(directory) => directory.clone(),
            None => PathBuf::from(format!("demo-{moment}")),
        };
        let directory = absolute(&directory)?;
        let run = format!("{moment}-{:04x}", std::process::id() & 0xffff);
        let mut ini = base(arguments.config.as_deref(), &directory)?;
        redirect(&mut ini, &directory, &run);
        claim(&directory)?;
        make_directory(&directory.join("logs"))?;
        if arguments.config.is_none() {
            write(&directory.join(MODEL_NAME), MODEL)?;
        }
        let config = directory.join("demo.ini");
        write(&config, ini.text().as_bytes())?;
        let settings = Settings::read(&config, &ProcessEnvironment)?;
        let place = Self { directory, config, settings, run };
        place.check()?;
        Ok(place)
    }

    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.directory.join("logs").join(program).with_extension("log")
    }

    /// The directory as it is shown.
    pub(super) fn shown(&self) -> String {
        self.relative(&self.directory)
    }

    /// A path as short as it can be from where the user is.
    pub(super) fn relative(&self, path: &Path) -> String {
        let here = std::env::current_dir().ok();
        let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
        match below {
            // Alone, a name would not be taken for a path.
            Some(below) if below.components().count() < 2 => Path::new(".").join(below),
            Some(below) => below,
            None => path.to_owned(),
        }
        .to_string_lossy()
        .into_owned()
    }

    /// Writes a drawn digit that is not among those of the run, for the user's own first step.
    pub(super) fn draw_picture(&self, seed: u64, samples: u64) -> Result<PathBuf, Failure> {
        let mut drawn = (samples..).map(|index| samples::draw(seed, index));
        let wanted = |sample: &samples::Sample| sample.content_type == "image/png";
        let picture = drawn.find(|sample| wanted(sample) && sample.width > 100);
        let path = self.directory.join("digit.png");
        write(&path, &picture.map(|sample| sample.bytes).unwrap_or_default())?;
        Ok(path)
    }

    /// An ini file has no way to hold every path there can be.
    fn check(&self) -> Result<(), Failure> {
        if self.settings.database == database(&self.directory) {
            return Ok(());
        }
        let message = format!("an ini file cannot hold the path {:?}", self.directory);
        Err(Failure::new(Reason::Config, message + "; choose another --directory"))
    }
}

fn database(directory: &Path) -> PathBuf {
    directory.join("predictions.db")
}

/// The ini text to start from, with the paths to what is not in the directory made absolute.
fn base(config: Option<&Path>, directory: &Path) -> Result<Ini, Failure> {
    let Some(path) = config else {
        let mut ini = Ini::new(CONFIG);
        ini.set("model", "path", &directory.join(MODEL_NAME).to_string_lossy());
        return Ok(ini);
    };
    let unreadable = |error| {
        Failure::new(Reason::Config, format!("cannot read the ini file {path:?}")).because(error)
    };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let settings = Settings::from_file(&File::parse(path, &text, &ProcessEnvironment)?)?;
    let mut ini = Ini::new(&text);
    ini.set("model", "path", &absolute(&settings.model.path)?.to_string_lossy());
    if let Some(library) = &settings.model.options.onnxruntime {
        ini.set("model", "onnxruntime", &absolute(library)?.to_string_lossy());
    }
    Ok(ini)
}

/// Points everything that the run writes into its directory, and at names of its own.
fn redirect(ini: &mut Ini, directory: &Path, run: &str) {
    ini.set("embedded", "directory", &directory.join("broker").to_string_lossy());
    ini.set("embedded", "durability", "normal");
    ini.set("app2", "database", &database(directory).to_string_lossy());
    ini.set("queue", "name", &format!("results-queue-{run}"));
    ini.set("model", "group", &format!("model-server-{run}"));
    ini.set("app2", "group", &format!("app2-{run}"));
    ini.set("topics", "images", &format!("images-{run}"));
    ini.set("topics", "predictions", &format!("predictions-{run}"));
    ini.set("topics", "dead_letters", &format!("dead-letters-{run}"));
}

/// Makes the directory, or takes one that is empty.
fn claim(directory: &Path) -> Result<(), Failure> {
    let refuse = |problem: &str| {
        let message = format!("{directory:?} {problem}; the demo wants a fresh --directory");
        Err(Failure::new(Reason::Config, message))
    };
    if !directory.exists() {
        return make_directory(directory);
    }
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => refuse("is not empty"),
        Err(_) if !directory.is_dir() => refuse("is not a directory"),
        Err(error) => Err(unwritable(directory, error)),
    }
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| unwritable(path, error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| unwritable(path, error))
}

pub(super) fn unwritable(path: &Path, error: std::io::Error) -> Failure {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let reason = if full { Reason::StorageFull } else { Reason::Start };
    Failure::new(reason, format!("cannot write {path:?}")).because(error)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(Reason::Config, format!("cannot make {path:?} absolute")).because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(directory: &Path) -> Arguments {
        Arguments { directory: Some(directory.to_owned()), ..Arguments::default() }
    }

    #[test]
    fn all_paths_of_a_run_lie_in_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::make(&arguments(&folder.path().join("a/b"))).unwrap();
        let broker = format!("{:?}", place.settings.broker);
        assert!(broker.contains(&format!("{:?}", place.directory.join("broker"))), "{broker}");
        assert!(broker.contains("durability: Normal"), "{broker}");
        for path in [&place.settings.database, &place.settings.model.path, &place.config] {
            assert!(path.starts_with(folder.path().join("a/b")), "{path:?}");
        }
        assert_eq!(fs::read(&place.settings.model.path).unwrap(), MODEL);
        let topics = &place.settings.topics;
        for name in [&topics.images, &topics.predictions, &topics.dead_letters] {
            assert!(name.as_str().ends_with(&place.run), "{name}");
        }
        let text = fs::read_to_string(&place.config).unwrap();
        assert!(text.contains("# full: each commit is synced to the disk."), "{text}");
    }

    #[test]
    fn a_directory_in_use_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        for used in [folder.path().to_owned(), folder.path().join("mine")] {
            let failure = Place::make(&arguments(&used)).unwrap_err();
            assert_eq!(failure.reason(), Reason::Config);
            assert!(failure.to_string().contains("fresh --directory"), "{failure}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_an_ini_file_would_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a${HOME:-x}b", "a\\tb"] {
            let failure = Place::make(&arguments(&folder.path().join(name))).unwrap_err();
            assert_eq!(failure.reason(), Reason::Config, "{name}: {failure}");
        }
    }

    #[test]
    fn the_model_of_a_given_configuration_stays_and_is_made_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("own.ini");
        fs::write(
            &config,
            "[broker]\nkind = embedded\n[model]\npath = m/n.onnx\n[embedded]\ndirectory = x\n",
        )
        .unwrap();
        let directory = folder.path().join("run");
        let place =
            Place::make(&Arguments { config: Some(config), ..arguments(&directory) }).unwrap();
        assert_eq!(place.settings.model.path, std::path::absolute("m/n.onnx").unwrap());
        assert!(!directory.join(MODEL_NAME).exists());
    }
}
