use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use crate::Labels;
use crate::train::download::{Published, fetch_all};
use crate::train::{Error, Observer, Quiet, cache_folder, fetch};

/// What the server says to a request for a file.
#[derive(Clone)]
struct Answer {
    body: Vec<u8>,
    /// What it claims the length to be.
    length: usize,
}

/// A web server that counts what it was asked for; it lives as long as the test process.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: HashMap<&'static str, Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data/", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                respond(stream.unwrap(), &answers, &log);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn respond(mut stream: TcpStream, answers: &HashMap<&str, Answer>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    let name = request.split(' ').nth(1).unwrap().trim_start_matches("/data/").to_owned();
    let (status, answer) = match answers.get(name.as_str()) {
        Some(answer) => ("200 OK", answer.clone()),
        None => ("404 Not Found", Answer { body: vec![], length: 0 }),
    };
    log.lock().unwrap().push(name);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.length
    );
    stream.write_all(&[head.as_bytes(), &answer.body].concat()).unwrap();
}

const ONE: &[u8] = b"the first file";
const TWO: &[u8] = &[7; 300_000];

fn whole(body: &[u8]) -> Answer {
    Answer { body: body.to_vec(), length: body.len() }
}

fn server() -> Server {
    Server::start(HashMap::from([("one", whole(ONE)), ("two", whole(TWO))]))
}

fn fetch_from(server: &Server, folder: &Path) -> Result<(), Error> {
    let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let (one, two) = (digest(ONE), digest(TWO));
    let files = [("one", Published::Sha256(&one)), ("two", Published::Sha256(&two))];
    fetch_all(&files, &server.url, folder, &mut Quiet)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_downloaded_once() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let target = folder.path().join("new/folder");
    fetch_from(&server, &target).unwrap();
    assert_eq!(names(&target), ["one", "two"]);
    assert_eq!(fs::read(target.join("one")).unwrap(), ONE);
    assert_eq!(fs::read(target.join("two")).unwrap(), TWO);
    fetch_from(&server, &target).unwrap();
    assert_eq!(server.requests(), ["one", "two"]);
}

#[test]
fn half_a_file_is_never_taken_for_whole() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("one"), ONE).unwrap();
    fs::write(folder.path().join("two"), &TWO[..1000]).unwrap();
    fetch_from(&server, folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("two")).unwrap(), TWO);
    assert_eq!(server.requests(), ["two"]);
}

fn check_failure(answer: Answer, check: impl Fn(&Error) -> bool) {
    let server = Server::start(HashMap::from([("one", whole(ONE)), ("two", answer)]));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch_from(&server, folder.path()).unwrap_err();
    assert!(check(&error), "{error:?}");
    assert!(error.to_string().contains(&format!("{}two", server.url)), "{error}");
    assert_eq!(names(folder.path()), ["one"]);
}

#[test]
fn a_wrong_checksum_is_an_error_of_its_own() {
    let expected = format!("{:x}", Sha256::digest(TWO));
    let other = format!("{:x}", Sha256::digest(b"something else"));
    check_failure(whole(b"something else"), |error| {
        matches!(error, Error::Checksum { actual, expected: published, algorithm: "SHA-256", .. }
            if *actual == other && *published == expected)
    });
}

#[test]
fn a_connection_that_breaks_off_leaves_nothing() {
    let broken = Answer { body: TWO[..2000].to_vec(), length: TWO.len() };
    check_failure(broken, |error| matches!(error, Error::Download { .. }));
}

#[test]
fn a_file_that_claims_to_be_huge_is_refused() {
    let huge = Answer { body: vec![], length: 1 << 40 };
    check_failure(huge, |error| error.to_string().contains("more than"));
}

#[test]
fn what_the_server_lacks_is_named_with_the_status() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let error = fetch(Labels::Mnist, &server.url, folder.path(), &mut Quiet).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    assert!(error.to_string().contains("train-images-idx3-ubyte.gz"), "{error}");
    assert!(error.to_string().contains("404"), "{error}");
}

#[test]
fn a_server_that_is_down_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let error = fetch(Labels::FashionMnist, &url, folder.path(), &mut Quiet).unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
}

#[test]
fn fashion_mnist_is_checked_by_the_digests_of_its_publisher() {
    let server = Server::start(HashMap::from([("train-images-idx3-ubyte.gz", whole(ONE))]));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(Labels::FashionMnist, &server.url, folder.path(), &mut Quiet).unwrap_err();
    assert!(matches!(&error, Error::Checksum { algorithm: "MD5", .. }), "{error:?}");
    assert!(error.to_string().contains("8d4fb7e6c68d591d4c3dfef9ec88bf0d"), "{error}");
}

#[derive(Default)]
struct Steps(Vec<(String, u64, Option<u64>)>);

impl Observer for Steps {
    fn download(&mut self, name: &str, bytes: u64, total: Option<u64>) {
        self.0.push((name.to_owned(), bytes, total));
    }
}

#[test]
fn progress_is_told_up_to_the_last_byte() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let digest = format!("{:x}", Sha256::digest(TWO));
    let mut steps = Steps::default();
    let files = [("two", Published::Sha256(digest.as_str()))];
    fetch_all(&files, &server.url, folder.path(), &mut steps).unwrap();
    let length = TWO.len() as u64;
    assert_eq!(steps.0.first(), Some(&("two".to_owned(), 0, Some(length))));
    assert_eq!(steps.0.last(), Some(&("two".to_owned(), length, Some(length))));
    assert!(steps.0.is_sorted_by_key(|(_, bytes, _)| *bytes));
}

/// Asks to stop at once.
struct Cancelled;

impl Observer for Cancelled {
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_cancelled_download_leaves_nothing() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let files = [("two", Published::Sha256("none"))];
    let outcome = fetch_all(&files, &server.url, folder.path(), &mut Cancelled);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn the_cache_is_where_the_environment_says() {
    let path = |name: &str| Some(PathBuf::from(name));
    assert_eq!(cache_folder(path("/f"), path("/x"), path("/h")), PathBuf::from("/f"));
    assert_eq!(cache_folder(None, path("/x"), path("/h")), PathBuf::from("/x/forebay"));
    assert_eq!(cache_folder(None, None, path("/h")), PathBuf::from("/h/.cache/forebay"));
}
