//! IDX files, whole and damaged.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use modelling::Error;
use modelling::idx::{self, Defect, Images};
use proptest::prelude::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A file with these numbers in its header and as many elements.
fn file(header: &[u32], elements: usize) -> Vec<u8> {
    let header = header.iter().flat_map(|number| number.to_be_bytes());
    header.chain((0..elements).map(|index| index as u8)).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn images(&self, bytes: &[u8]) -> modelling::Result<Images> {
        Images::open(&self.write(bytes))
    }
}

fn defect(outcome: modelling::Result<Images>) -> Defect {
    match outcome {
        Err(Error::Dataset { path, defect }) if path.ends_with("file") => defect,
        other => panic!("expected a defect, got {other:?}"),
    }
}

#[test]
fn images_and_labels_are_read_plain_and_packed() {
    let folder = Folder::new();
    let whole = file(&[0x803, 3, 2, 4], 24);
    for bytes in [whole.clone(), gzip(&whole)] {
        let images = folder.images(&bytes).unwrap();
        assert_eq!((images.len(), images.rows(), images.columns()), (3, 2, 4));
        assert_eq!(images.get(1), Some(&[8, 9, 10, 11, 12, 13, 14, 15][..]));
        assert_eq!(images.get(3), None);
        assert_eq!(images.get(usize::MAX), None);
        assert_eq!(images.iter().len(), 3);
    }
    // Two packed halves are what both are, one after the other.
    let halves = [gzip(&whole[..20]), gzip(&whole[20..])].concat();
    assert_eq!(folder.images(&halves).unwrap(), folder.images(&whole).unwrap());
    let whole = file(&[0x801, 5], 5);
    for bytes in [whole.clone(), gzip(&whole)] {
        assert_eq!(idx::labels(&folder.write(&bytes)).unwrap(), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn every_defect_is_named() {
    let folder = Folder::new();
    let check = |bytes: &[u8], expected: Defect| assert_eq!(defect(folder.images(bytes)), expected);
    let truncated = |part, actual, expected| Defect::Truncated { part, actual, expected };
    let length = |what, actual, limit| Defect::Length { what, actual, limit };
    let whole = file(&[0x803, 3, 2, 4], 24);
    check(b"", truncated("header", 0, 4));
    check(&whole[..6], truncated("header", 2, 4));
    check(&whole[..30], truncated("elements", 14, 24));
    check(&[&whole[..], b"x"].concat(), Defect::TooLong { expected: 24 });
    check(&file(&[0x801, 3], 3), Defect::Magic { actual: 0x801, expected: 0x803 });
    check(b"<html>", Defect::Magic { actual: 0x3c68_746d, expected: 0x803 });
    check(&file(&[0x803, 0, 2, 4], 0), length("number of images", 0, idx::ITEMS_MAX));
    check(&file(&[0x803, 3, 0, 4], 0), length("number of rows", 0, idx::PIXELS_MAX));
    check(
        &file(&[0x803, 3, 2, u32::MAX], 0),
        length("number of columns", u32::MAX.into(), idx::PIXELS_MAX),
    );
    check(
        &file(&[0x803, 3, 2000, 2000], 0),
        length("pixels of an image", 4_000_000, idx::PIXELS_MAX),
    );
    check(
        &file(&[0x803, 9_000_000, 1000, 1000], 0),
        length("number of bytes", 9_000_000_000_000, idx::BYTES_MAX),
    );
    check(&file(&[0x803, 4000, 1000, 1000], 7), truncated("elements", 7, 4_000_000_000));
    check(&gzip(&whole[..30]), truncated("elements", 14, 24));
    check(&gzip(&[&whole[..], b"x"].concat()), Defect::TooLong { expected: 24 });
}

#[test]
fn a_damaged_gzip_stream_is_named() {
    let folder = Folder::new();
    let mut packed = gzip(&file(&[0x803, 3, 2, 4], 24));
    let cut = &packed[..packed.len() / 2];
    assert!(matches!(defect(folder.images(cut)), Defect::Truncated { .. }));
    let trailing = [&packed[..], b"nonsense"].concat();
    assert!(matches!(defect(folder.images(&trailing)), Defect::Gzip { .. }));
    let checksum = packed.len() - 6;
    packed[checksum] ^= 1;
    assert!(matches!(defect(folder.images(&packed)), Defect::Gzip { .. }));
    assert!(matches!(
        defect(folder.images(b"\x1f\x8bnonsense")),
        Defect::Gzip { .. } | Defect::Truncated { .. }
    ));
}

#[test]
fn a_missing_file_is_missing() {
    let folder = Folder::new();
    let path = folder.0.path().join("none");
    assert!(matches!(Images::open(&path), Err(Error::MissingFile { .. })));
    assert!(matches!(idx::labels(folder.0.path()), Err(Error::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_files_never_panic(start in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let folder = Folder::new();
        let magic: &[u8] = if start { b"\0\0\x08\x03\0\0\0" } else { b"" };
        let bytes = [magic, &bytes].concat();
        let _ = folder.images(&bytes);
        let _ = idx::labels(&folder.write(&gzip(&bytes)));
    }
}
