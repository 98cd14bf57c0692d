//! What is no image goes to the dead letters with its cause and its bytes; the stream goes on.

use broker::Message;
use forebay_tests::{Record, Stage, wait_beside};
use modelling::samples::{self, Sample};

const SEED: u64 = 5;

/// The first sample of a type.
fn sample(content_type: &str) -> Sample {
    let mut all = (0..).map(|index| samples::draw(SEED, index));
    all.find(|sample| sample.content_type == content_type && sample.width > 28).unwrap()
}

/// An image of the stream; one key, so that all wait in one partition behind each other.
fn message(id: &str, content_type: &str, payload: Vec<u8>) -> Message {
    Message::new(payload)
        .with_key("one")
        .with_header("id", id)
        .with_header("content-type", content_type)
}

fn good(id: &str) -> Message {
    message(id, "image/png", sample("image/png").bytes)
}

/// Sends a payload between good images; it must be the one that dies, for a reason that holds
/// all of `words`.
fn dies(content_type: &str, payload: Vec<u8>, words: &[&str]) {
    let stage = Stage::embedded(|_| {});
    let mut servers = stage.start_servers();
    let bad = message("bad", content_type, payload);
    let positions = stage.publish(vec![good("before"), bad.clone(), good("after")]);
    wait_beside(&mut servers, "both good images", || (stage.row_count() == 2).then_some(()));
    let ids: Vec<String> = stage.rows().into_iter().map(|row| row.id).collect();
    assert_eq!(ids, ["after", "before"]);
    let letters = stage.read(&stage.settings.topics.dead_letters);
    let [letter] = &letters[..] else { panic!("not one dead letter: {letters:?}") };
    check_letter(letter, &bad);
    assert_eq!(letter.header("dead-letter-topic"), stage.settings.topics.images.as_str());
    assert_eq!(letter.header("dead-letter-partition"), positions[1].partition().to_string());
    assert_eq!(letter.header("dead-letter-offset"), positions[1].offset().to_string());
    let reason = letter.header("dead-letter-reason");
    assert!(words.iter().all(|word| reason.contains(word)), "{reason:?} lacks one of {words:?}");
}

/// The letter is the message as it was, but for what the dead letter adds.
fn check_letter(letter: &Record, sent: &Message) {
    assert_eq!(letter.message.payload, sent.payload);
    assert_eq!(letter.message.key, sent.key);
    for (name, value) in sent.headers.iter() {
        assert_eq!(letter.message.headers.get(name), Some(value), "header {name}");
    }
    assert_eq!(letter.header("dead-letter-attempts"), "1");
}

/// A NumPy array as NumPy writes it.
fn npy(kind: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap();
    [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], header.as_bytes(), elements].concat()
}

/// A chunk of a PNG: length, name, content, checksum.
fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let body = [name, content].concat();
    let mut remainder = u32::MAX;
    for byte in &body {
        remainder ^= u32::from(*byte);
        for _ in 0..8 {
            let low = remainder & 1;
            remainder = (remainder >> 1) ^ (0xedb8_8320 * low);
        }
    }
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes()[..], &body, &(!remainder).to_be_bytes()].concat()
}

/// A PNG that is sound but for what its header claims.
fn huge_png() -> Vec<u8> {
    let side = 100_000u32.to_be_bytes();
    let header = [&side[..], &side, &[8, 0, 0, 0, 0]].concat();
    // One stored block without content: a stream that ends early.
    let content = [0x78, 0x01, 0x01, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01];
    let mark = *b"\x89PNG\r\n\x1a\n";
    [&mark[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &content), &chunk(b"IEND", &[])].concat()
}

#[test]
fn an_empty_payload_is_a_dead_letter() {
    dies("image/png", Vec::new(), &["the payload is empty"]);
}

#[test]
fn a_truncated_png_is_a_dead_letter() {
    let whole = sample("image/png").bytes;
    dies("image/png", whole[..whole.len() / 2].to_vec(), &["PNG", "damaged"]);
}

#[test]
fn a_png_that_claims_ten_gigapixels_is_a_dead_letter() {
    let words = ["PNG", "100000x100000", "limit"];
    dies("image/png", huge_png(), &words);
}

#[test]
fn an_array_of_a_wrong_type_is_a_dead_letter() {
    let elements = [0; 28 * 28 * 4];
    dies("application/x-npy", npy("<i4", "(28, 28)", &elements), &["<i4", "expected", "float32"]);
}

#[test]
fn an_array_of_a_wrong_shape_is_a_dead_letter() {
    let elements = [0; 27 * 28];
    dies("application/x-npy", npy("|u1", "(27, 28)", &elements), &["[27, 28]", "[28, 28]"]);
}

#[test]
fn an_array_of_objects_is_a_dead_letter() {
    // What would be unpickled by a careless reader: a call of `os.system`.
    let pickle = b"\x80\x04cposix\nsystem\n(S'true'\ntR.";
    dies("application/x-npy", npy("|O", "(28, 28)", pickle), &["|O", "expected"]);
}

#[test]
fn an_array_with_a_pixel_that_is_no_number_is_a_dead_letter() {
    let mut pixels = [0.5f32; 28 * 28];
    pixels[7] = f32::NAN;
    let elements: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    dies("application/x-npy", npy("<f4", "(28, 28)", &elements), &["pixel 7", "NaN"]);
}

#[test]
fn a_text_file_is_a_dead_letter() {
    dies("text/plain", b"not an image at all\n".to_vec(), &["no image", "not an image"]);
}

#[test]
fn a_jpeg_that_is_labelled_as_png_is_decoded_as_what_it_is() {
    let stage = Stage::embedded(|_| {});
    let mut servers = stage.start_servers();
    let jpeg = sample("image/jpeg");
    stage.publish(vec![
        message("declared", "image/jpeg", jpeg.bytes.clone()),
        message("labelled-as-png", "image/png", jpeg.bytes),
    ]);
    wait_beside(&mut servers, "both images", || (stage.row_count() == 2).then_some(()));
    let rows = stage.rows();
    assert_eq!(rows[0].label, rows[1].label);
    assert_eq!(rows[0].label, jpeg.label.to_string());
    assert!(stage.read(&stage.settings.topics.dead_letters).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_header_that_claims_ten_gigapixels_costs_no_memory() {
    let stage = Stage::embedded(|_| {});
    let mut servers = stage.start_servers();
    stage.publish(vec![good("before")]);
    wait_beside(&mut servers, "the good image", || (stage.row_count() == 1).then_some(()));
    let before = servers[0].memory_peak();
    let bad = |index: usize| message(&format!("bad-{index}"), "image/png", huge_png());
    stage.publish((0..100).map(bad).collect());
    stage.publish(vec![good("after")]);
    wait_beside(&mut servers, "the good image behind", || (stage.row_count() == 2).then_some(()));
    assert_eq!(stage.read(&stage.settings.topics.dead_letters).len(), 100);
    let grown = servers[0].memory_peak() - before;
    assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
}
