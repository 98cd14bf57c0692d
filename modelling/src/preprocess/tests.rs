use std::io::Cursor;

use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, Luma, LumaA, RgbImage, Rgba, RgbaImage,
};
use proptest::prelude::*;

use super::*;

fn run(payload: &[u8], content_type: Option<&str>) -> Result<[f32; PIXELS], ImageError> {
    let mut pixels = [f32::NAN; PIXELS];
    preprocess(payload, content_type, &Limits::default(), &mut pixels)?;
    assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)), "a pixel is out of range");
    Ok(pixels)
}

fn cause(payload: &[u8], content_type: Option<&str>) -> String {
    run(payload, content_type).unwrap_err().to_string()
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A one: a bar of 10x60 in an image of 100x80, off the middle.
fn bar(paper: u8, ink: u8) -> GrayImage {
    GrayImage::from_fn(100, 80, |x, y| {
        Luma([if (20..30).contains(&x) && (10..70).contains(&y) { ink } else { paper }])
    })
}

/// Whether the pixels show an upright bar of 20 pixels in the middle.
fn shows_bar(pixels: &[f32; PIXELS]) -> bool {
    let row = |row: usize| &pixels[row * SIDE..][..SIDE];
    let ink = |row: &[f32]| row.iter().sum::<f32>();
    let full = (4..24).all(|index| (2.5..4.0).contains(&ink(row(index))));
    let empty = (0..4).chain(24..28).all(|index| ink(row(index)) == 0.0);
    full && empty
        && row(14)[13..15].iter().all(|pixel| *pixel > 0.9)
        && row(14)[..10].iter().all(|pixel| *pixel == 0.0)
}

fn ramp() -> [u8; PIXELS] {
    std::array::from_fn(|index| (index % 256) as u8)
}

fn npy(kind: &str, fortran: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': {kind}, 'fortran_order': {fortran}, 'shape': {shape}, }}").into_bytes();
    header.resize((10 + header.len()).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], &header, elements].concat()
}

#[test]
fn raw_bytes_are_taken_as_they_are() {
    let pixels = run(&ramp(), None).unwrap();
    assert_eq!(pixels[1..4], [1.0 / 255.0, 2.0 / 255.0, 3.0 / 255.0]);
    assert_eq!(run(&ramp(), Some("application/octet-stream; x=y")).unwrap(), pixels);
    assert!(cause(&ramp(), Some("image/png")).contains("declared as \"image/png\""));
    assert!(cause(&ramp(), Some("application/json")).contains("784 bytes"));
    assert!(cause(&ramp()[..783], None).contains("783 bytes"));
}

#[test]
fn grey_images_of_28x28_are_taken_as_they_are_in_every_format() {
    let raw = GrayImage::from_vec(28, 28, ramp().to_vec()).unwrap();
    let expected = run(&ramp(), None).unwrap();
    let coloured = DynamicImage::from(raw.clone()).into_rgb8();
    let sixteen = DynamicImage::from(raw.clone()).into_luma16();
    for payload in [
        encode(raw.clone(), ImageFormat::Png),
        encode(raw.clone(), ImageFormat::Bmp),
        encode(coloured.clone(), ImageFormat::Bmp),
        encode(coloured, ImageFormat::WebP),
        encode(sixteen, ImageFormat::Png),
    ] {
        assert_eq!(run(&payload, None).unwrap(), expected);
    }
}

#[test]
fn the_bytes_decide_and_not_the_declared_type() {
    let grey = bar(250, 10);
    for (format, declared) in [
        (ImageFormat::Jpeg, "image/png"),
        (ImageFormat::Png, "image/jpeg"),
        (ImageFormat::Bmp, "text/plain"),
        (ImageFormat::WebP, "image/gif"),
        (ImageFormat::Gif, "application/octet-stream"),
    ] {
        let payload = if format == ImageFormat::Jpeg {
            encode(grey.clone(), format)
        } else {
            encode(DynamicImage::from(grey.clone()).into_rgb8(), format)
        };
        assert!(shows_bar(&run(&payload, Some(declared)).unwrap()), "{format:?}");
    }
}

#[test]
fn a_digit_is_found_whatever_the_polarity_and_contrast() {
    for (paper, ink) in [(255, 0), (0, 255), (200, 90), (90, 200), (70, 10), (255, 200), (0, 40)] {
        let payload = encode(bar(paper, ink), ImageFormat::Png);
        assert!(shows_bar(&run(&payload, None).unwrap()), "{ink} on {paper}");
    }
}

#[test]
fn transparency_is_laid_on_what_contrasts_with_the_drawing() {
    for level in [0, 255] {
        let image = bar(0, 255);
        let image =
            GrayAlphaImage::from_fn(100, 80, |x, y| LumaA([level, image.get_pixel(x, y).0[0]]));
        assert!(shows_bar(&run(&encode(image, ImageFormat::Png), None).unwrap()), "{level}");
    }
    let red = bar(0, 255);
    let red = RgbaImage::from_fn(100, 80, |x, y| Rgba([200, 0, 0, red.get_pixel(x, y).0[0]]));
    assert!(shows_bar(&run(&encode(red, ImageFormat::Png), None).unwrap()));
}

#[test]
fn an_image_without_contrast_is_black() {
    for (width, height) in [(1, 1), (1, 5000), (50, 50)] {
        let image = RgbImage::from_pixel(width, height, image::Rgb([200, 200, 200]));
        assert_eq!(run(&encode(image, ImageFormat::Png), None).unwrap(), [0.0; PIXELS]);
    }
}

/// A seven of thin strokes in a large image: a bar, and a slanted stroke that touches it, far from the edges.
fn thin_seven(side: u32, pen: u32) -> GrayImage {
    GrayImage::from_fn(side, side, |x, y| {
        let (x, y) = (x * 1000 / side, y * 1000 / side);
        let pen = 1000 * pen / side;
        let bar = (300..700).contains(&x) && (200..200 + pen).contains(&y);
        let stroke = (200..800).contains(&y) && (x + y / 2).abs_diff(800) < pen;
        Luma([if bar || stroke { 20 } else { 240 - ((x * 7 + y * 13) % 5) as u8 }])
    })
}

#[test]
fn thin_strokes_in_large_images_are_not_cut_off() {
    for (side, pen, format) in
        [(500, 3, ImageFormat::Png), (1000, 3, ImageFormat::Jpeg), (3000, 8, ImageFormat::Png)]
    {
        let pixels = run(&encode(thin_seven(side, pen), format), None).unwrap();
        let inked = |row: &[f32]| row.iter().any(|pixel| *pixel > 0.2);
        let rows: Vec<bool> = pixels.chunks(SIDE).map(inked).collect();
        let count = rows.iter().filter(|inked| **inked).count();
        assert!((19..=20).contains(&count), "{side} {pen}: {rows:?}");
    }
}

#[test]
fn specks_do_not_widen_the_drawing() {
    let mut image = bar(250, 10);
    for (x, y) in [(2, 2), (97, 5), (98, 5), (50, 78)] {
        image.put_pixel(x, y, Luma([0]));
    }
    assert!(shows_bar(&run(&encode(image, ImageFormat::Png), None).unwrap()));
}

#[test]
fn extreme_shapes_are_fitted() {
    for (width, height) in [(3000, 1), (2, 4000), (5, 5), (1, 2), (29, 28)] {
        let image = GrayImage::from_fn(width, height, |x, y| {
            Luma([if (x + y) % 3 == 0 { 255 } else { 0 }])
        });
        run(&encode(image, ImageFormat::Png), None).unwrap();
    }
}

#[test]
fn arrays_are_read_in_every_accepted_form() {
    let expected = run(&ramp(), None).unwrap();
    let transposed: Vec<u8> =
        (0..PIXELS).map(|index| ramp()[index % SIDE * SIDE + index / SIDE]).collect();
    let floats = |bytes: fn(f64) -> Vec<u8>| {
        ramp().iter().flat_map(|byte| bytes(f64::from(*byte) / 255.0)).collect::<Vec<u8>>()
    };
    for (kind, fortran, shape, elements) in [
        ("'|u1'", "False", "(28, 28)", ramp().to_vec()),
        ("\"|u1\"", "False", "(28,28,1)", ramp().to_vec()),
        ("'|u1'", "False", "(1, 28, 28)", ramp().to_vec()),
        ("'|u1'", "True", "(28, 28)", transposed.clone()),
        ("'|u1'", "True", "(1, 28, 28)", transposed),
        ("'<f4'", "False", "(28, 28)", floats(|value| (value as f32).to_le_bytes().to_vec())),
        ("'>f4'", "False", "(28, 28)", floats(|value| (value as f32).to_be_bytes().to_vec())),
        ("'<f8'", "False", "(28, 28)", floats(|value| value.to_le_bytes().to_vec())),
        ("'>f8'", "False", "(28, 28)", floats(|value| value.to_be_bytes().to_vec())),
    ] {
        let pixels = run(&npy(kind, fortran, shape, &elements), Some("image/png")).unwrap();
        assert!(
            pixels.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6),
            "{kind} {fortran} {shape}"
        );
    }
}

#[test]
fn arrays_that_are_no_image_are_refused_by_name() {
    let check = |payload: &[u8], expected: &str| {
        let cause = cause(payload, None);
        assert!(cause.contains(expected), "{cause:?} does not contain {expected:?}");
    };
    let floats = |value: f32| [value.to_le_bytes(); PIXELS].concat();
    check(&npy("'|O'", "False", "(28, 28)", &ramp()), "\"|O\", expected uint8");
    check(&npy("'<i8'", "False", "(28, 28)", &ramp()), "\"<i8\"");
    check(&npy("[('a', '<f4')]", "False", "(28, 28)", &ramp()), "do not understand");
    check(&npy("'|u1'", "False", "(784,)", &ramp()), "shape [784], expected [28, 28]");
    check(&npy("'|u1'", "False", "(28, 27)", &ramp()), "shape [28, 27]");
    check(&npy("'|u1'", "False", "()", &ramp()), "do not understand");
    check(&npy("'|u1'", "Maybe", "(28, 28)", &ramp()), "do not understand");
    check(&npy("'|u1'", "False", "(28, 99999999999999999999)", &ramp()), "do not understand");
    check(
        &npy("'|u1'", "False", "(28, 28)", &ramp()[..700]),
        "700 bytes of elements, expected 784",
    );
    check(&npy("'<f4'", "False", "(28, 28)", &ramp()), "784 bytes of elements, expected 3136");
    check(&npy("'<f4'", "False", "(28, 28)", &floats(f32::NAN)), "pixel 0 is NaN");
    check(&npy("'<f4'", "False", "(28, 28)", &floats(f32::INFINITY)), "pixel 0 is inf");
    check(&npy("'<f4'", "False", "(28, 28)", &floats(254.0)), "pixel 0 is 254, expected 0 to 1");
    check(&npy("'<f4'", "False", "(28, 28)", &floats(-0.5)), "pixel 0 is -0.5");
    check(b"\x93NUMPY", "cut off in its header");
    check(b"\x93NUMPY\x01\x00\xff\x00{", "cut off in its header");
    check(b"\x93NUMPY\x09\x00\x10\x00", "version 9");
    check(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header of 4294967295 bytes, the limit is 10000");
    check(b"\x93NUMPY\x01\x00\x02\x00\xff\xff", "no text");
}

/// A PNG whose header, with a right checksum, claims this size, and nothing else.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let body =
        [b"IHDR", &width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let mut checksum = flate2::Crc::new();
    checksum.update(&body);
    [
        b"\x89PNG\r\n\x1a\n",
        &13u32.to_be_bytes()[..],
        &body,
        &checksum.sum().to_be_bytes(),
        b"\0\0\0\x10IDAT",
    ]
    .concat()
}

#[test]
fn a_header_that_claims_too_many_pixels_is_refused_before_decoding() {
    let refused = run(&png_header(100_000, 100_000), None).unwrap_err();
    let expected =
        ImageError::Pixels { format: "PNG", width: 100_000, height: 100_000, limit: 1 << 24 };
    assert_eq!(refused, expected);
    let mut bitmap = encode(bar(0, 255), ImageFormat::Bmp);
    bitmap[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    assert!(matches!(run(&bitmap, None), Err(ImageError::Pixels { format: "BMP", .. })));
    let coloured = DynamicImage::from(bar(0, 255)).into_rgb8();
    let mut gif = encode(coloured.clone(), ImageFormat::Gif);
    gif[6..10].fill(0xff);
    assert!(matches!(run(&gif, None), Err(ImageError::Pixels { width: 65_535, .. })));
    let mut jpeg = encode(coloured.clone(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xfe);
    assert!(matches!(run(&jpeg, None), Err(ImageError::Pixels { format: "JPEG", .. })));
    let mut webp = encode(coloured, ImageFormat::WebP);
    // After the mark of a lossless image: two lengths of 14 bits, both 16,383.
    webp[21..25].copy_from_slice(&[0xfe, 0xbf, 0xff, 0x0f]);
    assert!(matches!(run(&webp, None), Err(ImageError::Pixels { format: "WebP", .. })));
    let limits = Limits { pixels_max: 100 * 80 - 1, ..Limits::default() };
    let outcome =
        preprocess(&encode(bar(0, 255), ImageFormat::Png), None, &limits, &mut [0.0; PIXELS]);
    assert!(matches!(outcome, Err(ImageError::Pixels { width: 100, height: 80, .. })));
}

#[test]
fn a_payload_that_is_too_large_is_refused() {
    let limits = Limits { bytes_max: 783, ..Limits::default() };
    let outcome = preprocess(&ramp(), None, &limits, &mut [0.0; PIXELS]);
    assert_eq!(outcome, Err(ImageError::Bytes { actual: 784, limit: 783 }));
}

#[test]
fn what_is_no_image_is_refused_with_its_cause() {
    assert_eq!(run(b"", Some("image/png")), Err(ImageError::Empty));
    let text = cause(b"hello, world\x1b[31m", Some("image/png"));
    assert!(
        text.contains(r#"start with "hello, world\x1b[31", declared as "image/png""#),
        "{text}"
    );
    for (format, name) in [
        (ImageFormat::Png, "PNG"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Gif, "GIF"),
        (ImageFormat::WebP, "WebP"),
    ] {
        let whole = encode(DynamicImage::from(bar(0, 255)).into_rgb8(), format);
        for length in [30, whole.len() / 2] {
            let cause = cause(&whole[..length], None);
            assert!(cause.starts_with(&format!("the {name} image is damaged: ")), "{cause}");
        }
    }
    let whole = encode(bar(0, 255), ImageFormat::Jpeg);
    assert!(cause(&whole[..100], None).starts_with("the JPEG image is damaged: "));
}

/// What arrives when something is nearly right.
fn seeds() -> Vec<Vec<u8>> {
    let coloured = DynamicImage::from(bar(30, 200)).into_rgb8();
    let small = GrayImage::from_vec(28, 28, ramp().to_vec()).unwrap();
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ];
    let mut seeds: Vec<_> = formats.map(|format| encode(coloured.clone(), format)).into();
    seeds.push(encode(small, ImageFormat::Png));
    seeds.push(npy("'<f4'", "False", "(28, 28)", &[0; 4 * PIXELS]));
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = run(&payload, None);
    }

    #[test]
    fn random_bytes_after_a_mark_never_panic(mark in 0..7usize, length in 2..40usize, rest in proptest::collection::vec(any::<u8>(), 0..500)) {
        let seed = &seeds()[mark];
        let _ = run(&[&seed[..length.min(seed.len())], &rest].concat(), None);
    }

    #[test]
    fn damaged_images_never_panic(seed in 0..7usize, at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<proptest::sample::Index>()) {
        let mut payload = seeds().swap_remove(seed);
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = run(&payload, None);
        payload.truncate(cut.index(payload.len()));
        let _ = run(&payload, None);
    }
}
