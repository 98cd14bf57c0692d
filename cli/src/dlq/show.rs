//! `forebay dlq show`.

use broker::Delivery;
use model_server::process::{Failure, Reason};
use serde::Serialize;

use super::letter::Letter;
use super::selection::Selection;
use super::{Letters, Where, no_such};
use crate::{escape, output, record};

/// How many bytes a line of a dump shows.
const DUMP_WIDTH: usize = 16;

/// Show dead letters whole: cause, attempts, where they came from, headers and bytes
///
/// A payload that is text is shown as text, any other as a dump of its bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay dlq show 0:17
  forebay dlq show run-7-42 --raw > letter.png
  forebay dlq show --reason 'not an image' --json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Dump the bytes of text too
    #[arg(long)]
    hex: bool,
    /// Write nothing but the original bytes; one letter must be chosen
    #[arg(long, conflicts_with_all = ["hex", "json"])]
    raw: bool,
    #[command(flatten)]
    place: Where,
}

/// A letter with all its bytes.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    letter: Letter,
    key: Option<String>,
    key_base64: Option<String>,
    headers: Vec<record::Header>,
    payload: Option<String>,
    payload_base64: Option<String>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let letters = Letters::open(&arguments.place).await?;
    let mut missing = arguments.selection.names();
    let mut raw: Vec<bytes::Bytes> = Vec::new();
    let see = |delivery: &Delivery| {
        missing.see(delivery);
        if !arguments.selection.takes(delivery) {
            return Ok(());
        }
        if arguments.raw {
            // Two are enough to know that there are too many.
            raw.extend((raw.len() < 2).then(|| delivery.payload.clone()));
            return Ok(());
        }
        output::print(&match arguments.place.json {
            true => output::json(&whole(delivery))?,
            false => text(delivery, arguments.hex),
        })
    };
    letters.read(false, see).await?;
    let names = missing.left();
    if !names.is_empty() {
        return Err(no_such(&names, &letters.topic));
    }
    if arguments.raw {
        write_raw(&raw)?;
    }
    letters.close().await
}

fn write_raw(payloads: &[bytes::Bytes]) -> Result<(), Failure> {
    match payloads {
        [payload] => output::write(payload).map(drop),
        [] => Err(Failure::new(Reason::Unexpected, "no dead letter is chosen")),
        _ => {
            let problem = "more than one dead letter is chosen: --raw writes one";
            Err(Failure::new(Reason::Unexpected, problem))
        }
    }
}

fn whole(delivery: &Delivery) -> Whole {
    let (key, key_base64) = delivery.key.as_deref().map_or((None, None), record::split);
    let (payload, payload_base64) = record::split(&delivery.payload);
    let headers = record::headers(&delivery.headers);
    Whole { letter: Letter::of(delivery), key, key_base64, headers, payload, payload_base64 }
}

fn text(delivery: &Delivery, as_hex: bool) -> String {
    let mut text = Letter::of(delivery).describe_death();
    if let Some(key) = &delivery.key {
        text += &format!("{:8} key {}\n", "", escape::bytes(key, usize::MAX));
    }
    for (name, value) in delivery.headers.iter() {
        let value = escape::bytes(value, usize::MAX);
        text += &format!("{:8} header {}: {value}\n", "", escape::text(name));
    }
    text += &format!("{:8} {} bytes\n", "", delivery.payload.len());
    text + &body(&delivery.payload, as_hex) + "\n"
}

/// Text line by line, or a dump.
fn body(payload: &[u8], as_hex: bool) -> String {
    let is_plain = |text: &&str| text.chars().all(|it| !it.is_control() || "\n\r\t".contains(it));
    match std::str::from_utf8(payload).ok().filter(is_plain) {
        Some(plain) if !as_hex => plain.lines().map(|line| escape::text(line) + "\n").collect(),
        _ => dump(payload),
    }
}

/// Offset, bytes in hexadecimal, and what of them can be printed.
fn dump(bytes: &[u8]) -> String {
    let line = |(index, bytes): (usize, &[u8])| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let shown = bytes.iter().map(|byte| if is_shown(byte) { char::from(*byte) } else { '.' });
        let (offset, width) = (index * DUMP_WIDTH, 3 * DUMP_WIDTH - 1);
        format!("{offset:08x}  {:<width$}  {}\n", hex.join(" "), shown.collect::<String>())
    };
    bytes.chunks(DUMP_WIDTH).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_other_bytes_are_dumped() {
        assert_eq!(body("größer\n7\t8".as_bytes(), false), "größer\n7\\t8\n");
        let dumped = "00000000  89 50 4e 47 0d 0a 1a 0a                          .PNG....\n";
        assert_eq!(body(b"\x89PNG\r\n\x1a\n", false), dumped);
        assert_eq!(body(b"a\x1b[2J", false), body(b"a\x1b[2J", true));
        let long = body(&[b'x'; 17], true);
        assert!(long.ends_with("00000010  78                                               x\n"));
    }
}
