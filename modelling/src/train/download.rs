//! Fetching datasets: checked by digest, and never half a file under its name.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::Md5;
use sha2::digest::DynDigest;
use sha2::{Digest, Sha256};

use super::outputs::partial;
use super::{Error, Observer};
use crate::Labels;

/// The largest file that is accepted, in bytes; MNIST's largest has 10 million.
const BYTES_MAX: u64 = 256 << 20;

/// How long a server may take to answer, and how long it may be silent.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the datasets are published.
pub const BASE_URLS: [(Labels, &str); 2] = [
    (Labels::Mnist, "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    (Labels::FashionMnist, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
];

/// A published digest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Published<'a> {
    Sha256(&'a str),
    Md5(&'a str),
}

type Files = [(&'static str, Published<'static>); 4];

const MNIST: Files = [
    (
        "train-images-idx3-ubyte.gz",
        Published::Sha256("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ),
    (
        "train-labels-idx1-ubyte.gz",
        Published::Sha256("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ),
    (
        "t10k-images-idx3-ubyte.gz",
        Published::Sha256("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ),
    (
        "t10k-labels-idx1-ubyte.gz",
        Published::Sha256("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
];

/// Its publisher names MD5 digests only.
const FASHION_MNIST: Files = [
    ("train-images-idx3-ubyte.gz", Published::Md5("8d4fb7e6c68d591d4c3dfef9ec88bf0d")),
    ("train-labels-idx1-ubyte.gz", Published::Md5("25c81989df183df01b3e8a0aad5dffbe")),
    ("t10k-images-idx3-ubyte.gz", Published::Md5("bef4ecab320f06d8554ea6380940ec79")),
    ("t10k-labels-idx1-ubyte.gz", Published::Md5("bb300cfdad3c16e7a12a480ee83cd310")),
];

impl<'a> Published<'a> {
    fn algorithm(self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Md5(_) => "MD5",
        }
    }

    fn digest(self) -> &'a str {
        match self {
            Self::Sha256(digest) | Self::Md5(digest) => digest,
        }
    }

    fn hasher(self) -> Box<dyn DynDigest> {
        match self {
            Self::Sha256(_) => Box::new(Sha256::new()),
            Self::Md5(_) => Box::new(Md5::new()),
        }
    }
}

/// The cache directory, given `FOREBAY_CACHE`, `XDG_CACHE_HOME` and `HOME` as far as they are set.
pub fn cache_folder(
    forebay: Option<PathBuf>,
    cache: Option<PathBuf>,
    home: Option<PathBuf>,
) -> PathBuf {
    let usual = || cache.or(home.map(|home| home.join(".cache"))).unwrap_or_default();
    forebay.unwrap_or_else(|| usual().join("forebay"))
}

/// Makes sure that the four files of a dataset are in `folder`, downloading from `base_url` what is missing or damaged.
///
/// Files appear under their names only when they are whole and their digest is right. Fails with `Download`, `Checksum`, `Write`, or `Cancelled`.
pub fn fetch(
    labels: Labels,
    base_url: &str,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let files = match labels {
        Labels::Mnist => MNIST,
        Labels::FashionMnist => FASHION_MNIST,
    };
    fetch_all(&files, base_url, folder, observer)
}

pub(super) fn fetch_all(
    files: &[(&str, Published<'_>)],
    base_url: &str,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
    for (name, published) in files {
        let path = folder.join(name);
        if is_intact(&path, *published) {
            continue;
        }
        let url = format!("{}/{name}", base_url.trim_end_matches('/'));
        let partial = partial(&path);
        let done = download(&url, *published, &partial, name, observer)
            .and_then(|()| fs::rename(&partial, &path).map_err(|error| Error::write(&path, error)));
        if done.is_err() {
            // What is left over has no use; that it can't be deleted matters less than why it failed.
            fs::remove_file(&partial).ok();
        }
        done?;
    }
    Ok(())
}

fn is_intact(path: &Path, published: Published<'_>) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut hasher = published.hasher();
    let mut reader = BufReader::new(file);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return hex(&hasher.finalize()) == published.digest(),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(_) => return false,
        }
    }
}

fn download(
    url: &str,
    published: Published<'_>,
    target: &Path,
    name: &str,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let failed = |reason: String| Error::Download { url: url.to_owned(), reason };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_recv_body(Some(TIMEOUT * 20))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    let body = response.into_body();
    let total = body.content_length();
    if total.is_some_and(|total| total > BYTES_MAX) {
        return Err(failed(format!("it has more than {BYTES_MAX} bytes")));
    }
    let mut reader = body.into_reader().take(BYTES_MAX + 1);
    let mut file = File::create(target).map_err(|error| Error::write(target, error))?;
    let (mut hasher, mut done) = (published.hasher(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        observer.download(name, done, total);
        if observer.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let count = reader.read(&mut buffer).map_err(|error| failed(error.to_string()))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(|error| Error::write(target, error))?;
        done += count as u64;
    }
    if done > BYTES_MAX {
        return Err(failed(format!("it has more than {BYTES_MAX} bytes")));
    }
    if total.is_some_and(|total| total != done) {
        return Err(failed(format!("it ended after {done} of {} bytes", total.unwrap_or(0))));
    }
    check(url, published, hex(&hasher.finalize()))
}

fn check(url: &str, published: Published<'_>, actual: String) -> Result<(), Error> {
    if actual == published.digest() {
        return Ok(());
    }
    Err(Error::Checksum {
        url: url.to_owned(),
        algorithm: published.algorithm(),
        actual,
        expected: published.digest().to_owned(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
