//! A place in a trace, as W3C Trace Context writes it into headers.

use std::fmt;

use crate::message::{Headers, Message};

/// The header that holds the trace and the span that a message continues.
pub const TRACEPARENT: &str = "traceparent";
/// The header of what tracing systems add; it is passed on as it is.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The bytes that a context adds to a message.
pub(super) const HEADER_BYTES: usize = TRACEPARENT.len() + LENGTH;
const SAMPLED: u8 = 1;

/// The trace and the span that a message continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) flags: u8,
}

impl Context {
    /// A new trace, whose systems are asked to record it.
    pub fn root() -> Self {
        // All zeros mean "none", so one bit is set.
        let trace = (fastrand::u128(..) | 1).to_be_bytes();
        Self { trace, span: (fastrand::u64(..) | 1).to_be_bytes(), flags: SAMPLED }
    }

    /// What a message continues; `None` where it has no context, or one that does not parse.
    pub fn of(message: &Message) -> Option<Self> {
        Self::parse(message.headers.get(TRACEPARENT)?)
    }

    /// Reads a `traceparent`: `version-trace-span-flags` in lower-case hexadecimal digits.
    /// Versions to come may add something behind.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut version = [0];
        digits(known.get(..2)?, &mut version)?;
        let may_go_on = version[0] > 0 && rest.first() == Some(&b'-');
        if version[0] == 0xff || !(rest.is_empty() || may_go_on) {
            return None;
        }
        if [2, 35, 52].iter().any(|dash| known[*dash] != b'-') {
            return None;
        }
        let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0]);
        digits(&known[3..35], &mut trace)?;
        digits(&known[36..52], &mut span)?;
        digits(&known[53..], &mut flags)?;
        let is_valid = trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, flags: flags[0] })
    }

    /// The trace's number, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }

    /// Makes a message continue this context in place of what it continued before.
    pub fn put_on(&self, message: &mut Message) {
        let text = self.to_string();
        let headers = &mut message.headers;
        if headers.get(TRACEPARENT).is_some() {
            *headers = headers.iter().filter(|(name, _)| *name != TRACEPARENT).collect();
        }
        headers.push(TRACEPARENT, text.as_bytes());
    }
}

/// Makes `to` continue what `from` continues: for a message that is made out of a delivery.
pub fn carry(from: &Message, to: &mut Message) {
    let is_context = |name: &str| name == TRACEPARENT || name == TRACESTATE;
    if Context::of(from).is_none() {
        return;
    }
    let kept = to.headers.iter().filter(|(name, _)| !is_context(name));
    let carried = from.headers.iter().filter(|(name, _)| is_context(name));
    let headers: Headers = kept.chain(carried).collect();
    to.headers = headers;
}

/// Reads two digits for each byte.
fn digits(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    for (pair, byte) in text.chunks_exact(2).zip(bytes) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Context {
    /// The value of the header `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_reads_as_it_was_written() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let root = Context::root();
        assert_eq!(Context::parse(root.to_string().as_bytes()), Some(root));
        assert_ne!(root.trace, Context::root().trace);
    }

    #[test]
    fn what_is_no_context_is_none() {
        let later = GOOD.replacen("00", "cc", 1);
        for good in [later.clone(), format!("{later}-what-comes")] {
            assert!(Context::parse(good.as_bytes()).is_some(), "{good}");
        }
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &format!("{later}more"),
            &GOOD.replace('-', "_"),
            &GOOD.replacen('4', "g", 1),
            &GOOD.replacen("4b", "ü", 1),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_context_replaces_the_one_before_and_nothing_else() {
        let mut message = Message::new("x")
            .with_header("id", "7")
            .with_header(TRACEPARENT, "nonsense")
            .with_header(TRACESTATE, "vendor=1");
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        context.put_on(&mut message);
        assert_eq!(Context::of(&message), Some(context));
        let names: Vec<&str> = message.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["id", TRACESTATE, TRACEPARENT]);
        assert_eq!(message.size(), 1 + 3 + TRACESTATE.len() + 8 + HEADER_BYTES);
    }

    #[test]
    fn what_is_made_out_of_a_delivery_carries_its_context_on() {
        let from = Message::new("in").with_header(TRACEPARENT, GOOD).with_header(TRACESTATE, "v=1");
        let mut to = Message::new("out").with_header("id", "7").with_header(TRACEPARENT, "old");
        carry(&from, &mut to);
        let headers: Vec<_> = to.headers.iter().collect();
        let expected = [("id", &b"7"[..]), (TRACEPARENT, GOOD.as_bytes()), (TRACESTATE, b"v=1")];
        assert_eq!(headers, expected);
        let before = to.clone();
        carry(&Message::new("without"), &mut to);
        assert_eq!(to, before);
    }
}
