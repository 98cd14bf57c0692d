use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use model_server::process::{Failure, Reason};

use super::*;

/// An IDX file with these dimensions, of which the first is the number of items.
fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|length| length.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

fn images(count: u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..count).flat_map(|image| [image; PIXELS]).collect();
    idx(&[u32::from(count), 28, 28], &pixels)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(paths: &[PathBuf], labels: Option<PathBuf>) -> Result<Catalogue, Failure> {
    let sources = Sources { paths: paths.to_vec(), labels, ..Sources::default() };
    Catalogue::open(&sources, Labels::Mnist)
}

fn item(catalogue: &Catalogue, index: u64) -> Item {
    catalogue.item(index, 1 << 20).unwrap()
}

/// Checks that the sources are refused as input, for a reason that tells all of `parts`.
fn refused(paths: &[PathBuf], labels: Option<PathBuf>, parts: &[&str]) {
    let failure = open(paths, labels).unwrap_err();
    assert_eq!(failure.reason(), Reason::Input, "{failure}");
    for part in parts {
        assert!(failure.to_string().contains(part), "{failure}: no {part:?}");
    }
}

#[test]
fn a_directory_gives_its_files_in_the_order_of_their_paths_without_hidden_ones() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["b/2.jpg", "a.txt", "b/10.PNG", ".hidden", ".git/config", "c", "b.bmp"];
    for name in names {
        write(directory.path(), name, name.as_bytes());
    }
    std::os::unix::fs::symlink(directory.path(), directory.path().join("b/round")).unwrap();
    std::os::unix::fs::symlink("2.jpg", directory.path().join("b/3.jpg")).unwrap();
    let catalogue = open(&[directory.path().to_owned()], None).unwrap();
    let items: Vec<_> = (0..catalogue.len()).map(|index| item(&catalogue, index)).collect();
    let payloads: Vec<&[u8]> = items.iter().map(|item| &item.payload[..]).collect();
    let expected: [&[u8]; 6] = [b"a.txt", b"b/10.PNG", b"b/2.jpg", b"b/2.jpg", b"b.bmp", b"c"];
    assert_eq!(payloads, expected);
    let types: Vec<_> = items.iter().map(|item| item.content_type).collect();
    let (png, jpeg) = (Some("image/png"), Some("image/jpeg"));
    assert_eq!(types, [Some("text/plain"), png, jpeg, jpeg, Some("image/bmp"), None]);
    assert_eq!(items[1].file_name.as_deref(), Some(&b"10.PNG"[..]));
    assert!(items.iter().all(|item| item.label.is_none()));
}

#[test]
fn an_idx_file_gives_its_images_with_the_labels_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    for pack in [<[u8]>::to_vec as fn(&[u8]) -> Vec<u8>, gzip] {
        let path = write(directory.path(), "x-images-idx3-ubyte", &pack(&images(3)));
        write(directory.path(), "x-labels-idx1-ubyte", &pack(&idx(&[3], &[7, 0, 9])));
        let catalogue = open(&[path], None).unwrap();
        assert_eq!(catalogue.len(), 3);
        for (index, label) in [(0, "7"), (1, "0"), (2, "9"), (3, "7")] {
            let item = item(&catalogue, index);
            assert_eq!(item.payload, vec![(index % 3) as u8; PIXELS]);
            assert_eq!((item.label, item.content_type), (Some(label), Some(RAW)));
        }
    }
}

#[test]
fn labels_can_be_named_and_must_fit() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "pictures", &images(2));
    let labels = |bytes: &[u8]| Some(write(directory.path(), "truth", bytes));
    let catalogue = open(std::slice::from_ref(&path), labels(&idx(&[2], &[4, 5]))).unwrap();
    assert_eq!(item(&catalogue, 1).label, Some("5"));
    let one = std::slice::from_ref(&path);
    refused(one, labels(&idx(&[1], &[4])), &["truth", "1 labels for 2 images", "pictures"]);
    refused(one, labels(&idx(&[2], &[4, 10])), &["truth", "10 is no class of mnist"]);
    refused(one, labels(&images(1)), &["truth", "magic number is 0x00000803"]);
    let text = write(directory.path(), "text", b"hello");
    refused(&[text], labels(&idx(&[2], &[4, 5])), &["truth", "no IDX file of images"]);
}

#[test]
fn sources_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name, bytes: &[u8]| write(directory.path(), name, bytes);
    refused(&[directory.path().join("nowhere")], None, &["nowhere", "No such file"]);
    std::fs::create_dir(directory.path().join("bare")).unwrap();
    refused(&[directory.path().join("bare")], None, &["bare", "holds no files"]);
    let wide = idx(&[1, 28, 32], &[0; 28 * 32]);
    refused(&[path("wide", &wide)], None, &["wide", "28x32, expected 28x28"]);
    refused(&[path("cut", &images(2)[..900])], None, &["cut", "884 bytes of elements"]);
    let packed = gzip(&images(2));
    refused(&[path("cut.gz", &packed[..packed.len() - 9])], None, &["cut.gz"]);
    refused(&["-".into(), "-".into()], None, &["standard input", "twice"]);
}

#[test]
fn parts_follow_each_other_and_begin_again() {
    let directory = tempfile::tempdir().unwrap();
    let paths = [
        write(directory.path(), "one.png", b"one"),
        write(directory.path(), "idx", &images(2)),
        write(directory.path(), "two.png", b"two"),
    ];
    let list = write(directory.path(), "list", format!("{}\n\n", paths[0].display()).as_bytes());
    let sources = Sources {
        paths: paths.to_vec(),
        files_from: Some(list),
        samples: 2,
        seed: 5,
        ..Sources::default()
    };
    let catalogue = Catalogue::open(&sources, Labels::Mnist).unwrap();
    assert_eq!(catalogue.len(), 7);
    for start in [0, 7, 700] {
        for at in 0..2 {
            let (drawn, sample) = (item(&catalogue, start + at), samples::draw(5, at));
            assert_eq!(drawn.payload, sample.bytes);
            assert_eq!(drawn.label, Some(sample.label.to_string().as_str()));
        }
        let rest: Vec<_> = (2..7).map(|at| item(&catalogue, start + at).payload).collect();
        let (zero, one) = ([0; PIXELS], [1; PIXELS]);
        assert_eq!(rest, [&b"one"[..], &zero, &one, b"two", b"one"]);
    }
    assert_eq!(catalogue.name(1), "sample 1 of seed 5");
    assert!(catalogue.name(3).starts_with("image 0 of "), "{}", catalogue.name(3));
}

#[test]
fn a_file_over_the_limit_is_refused_with_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let paths = [write(directory.path(), "a", &[0; 100]), write(directory.path(), "b", &[0; 101])];
    let catalogue = open(&paths, None).unwrap();
    assert_eq!(catalogue.item(0, 100).unwrap().payload.len(), 100);
    let reason = catalogue.item(1, 100).unwrap_err();
    assert_eq!(reason, "it has 101 bytes, over the broker's limit of 100");
    std::fs::remove_file(&paths[0]).unwrap();
    let reason = catalogue.item(0, 100).unwrap_err();
    assert!(reason.contains("cannot be read"), "{reason}");
}
