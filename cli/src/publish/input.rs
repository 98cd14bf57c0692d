//! What is published: one message, some number of times, or each line of a file.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use broker::Message;
use bytes::Bytes;
use model_server::process::{Failure, Reason};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::record::Record;

/// The most messages of one batch.
pub(super) const BATCH: usize = 500;
/// How much longer a line may be than its payload: names, base64 and escapes.
const LINE_ROOM: u64 = 64 << 10;

/// Where the bytes come from.
#[derive(Debug, Clone)]
pub(super) enum Bytesource {
    Text(String),
    File(PathBuf),
    Stdin,
}

/// How the bytes are cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    Lines,
    JsonLines,
}

/// Messages to come.
pub(super) enum Input {
    /// One message, so many times.
    Repeated { message: Message, left: u64 },
    /// Lines, read on a thread of their own, as reading may block.
    Lines { lines: Receiver<Result<Line, Failure>>, cut: Cut, envelope: Message },
}

/// A line with its number, from 1.
pub(super) struct Line {
    number: u64,
    bytes: Vec<u8>,
}

impl Bytesource {
    pub(super) fn from_arguments(text: Option<&str>, file: Option<&Path>) -> Result<Self, Failure> {
        let from_name = |name: &Path| match name == Path::new("-") {
            true => Self::Stdin,
            false => Self::File(name.to_owned()),
        };
        match (text, file) {
            (Some("-"), _) => Ok(Self::Stdin),
            (Some(text), _) => Ok(Self::Text(text.to_owned())),
            (None, Some(file)) => Ok(from_name(file)),
            (None, None) if std::io::stdin().is_terminal() => {
                let problem = "nothing to publish: give a TEXT, --file, or - for standard input";
                Err(Failure::new(Reason::Input, problem))
            }
            (None, None) => Ok(Self::Stdin),
        }
    }

    fn open(self) -> Result<Box<dyn BufRead + Send>, Failure> {
        Ok(match self {
            Self::Text(text) => Box::new(std::io::Cursor::new(text.into_bytes())),
            Self::Stdin => Box::new(BufReader::new(std::io::stdin())),
            Self::File(path) => {
                let file = File::open(&path).map_err(|error| unreadable(&path, error))?;
                Box::new(BufReader::new(file))
            }
        })
    }

    /// All of it, unless it is longer than `bytes_max`.
    pub(super) fn whole(self, bytes_max: u64) -> Result<Bytes, Failure> {
        let mut bytes = Vec::new();
        let limited = self.open()?.take(bytes_max + 1).read_to_end(&mut bytes);
        limited.map_err(|error| unreadable(Path::new("input"), error))?;
        if bytes.len() as u64 > bytes_max {
            let problem = format!("the input is longer than a message may be: {bytes_max} bytes");
            return Err(Failure::new(Reason::Input, problem));
        }
        Ok(bytes.into())
    }

    /// Line by line, each at most `bytes_max` of payload.
    pub(super) fn lines(
        self,
        cut: Cut,
        envelope: Message,
        bytes_max: u64,
    ) -> Result<Input, Failure> {
        // Base64 takes a third more, and JSON may write a byte as six.
        let line_max = if cut == Cut::JsonLines { bytes_max * 6 } else { bytes_max } + LINE_ROOM;
        let (sender, lines) = channel(2 * BATCH);
        let reader = self.open()?;
        std::thread::Builder::new()
            .name("lines".into())
            .spawn(move || read_lines(reader, line_max, &sender))
            .map_err(|error| Failure::start("no thread can be started", error))?;
        Ok(Input::Lines { lines, cut, envelope })
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Reason::Input, format!("cannot read {}", path.display())).because(error)
}

/// Ends with the input, at the first error, or when nobody takes lines any more.
fn read_lines(
    mut reader: Box<dyn BufRead + Send>,
    line_max: u64,
    lines: &Sender<Result<Line, Failure>>,
) {
    for number in 1.. {
        let line = next_line(reader.as_mut(), number, line_max);
        let is_last = line.is_err();
        let Some(line) = line.transpose() else { return };
        if lines.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

fn next_line(
    reader: &mut dyn BufRead,
    number: u64,
    line_max: u64,
) -> Result<Option<Line>, Failure> {
    let mut bytes = Vec::new();
    let count = reader.take(line_max + 1).read_until(b'\n', &mut bytes);
    count.map_err(|error| unreadable(Path::new("input"), error))?;
    if bytes.len() as u64 > line_max {
        let problem = format!("line {number} is longer than {line_max} bytes");
        return Err(Failure::new(Reason::Input, problem));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some(Line { number, bytes }))
}

impl Input {
    /// The next messages, at most `max`; none at the end.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Message>, Failure> {
        match self {
            Self::Repeated { message, left } => {
                let count = (*left).min(max as u64);
                *left -= count;
                Ok((0..count).map(|_| message.clone()).collect())
            }
            Self::Lines { lines, cut, envelope } => {
                let mut taken = Vec::new();
                lines.recv_many(&mut taken, max).await;
                taken.into_iter().map(|line| line?.into_message(*cut, envelope)).collect()
            }
        }
    }
}

impl Line {
    fn into_message(self, cut: Cut, envelope: &Message) -> Result<Message, Failure> {
        if cut == Cut::Lines {
            return Ok(Message { payload: self.bytes.into(), ..envelope.clone() });
        }
        let record = serde_json::from_slice::<Record>(&self.bytes);
        let message = record.map_err(|error| error.to_string()).and_then(Record::into_message);
        message.map_err(|problem| {
            Failure::new(Reason::Input, format!("line {} is no message: {problem}", self.number))
        })
    }
}
