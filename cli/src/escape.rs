//! Making bytes of others safe to print.

/// The first `max` bytes, with everything that is not printable ASCII escaped.
pub(crate) fn bytes(bytes: &[u8], max: usize) -> String {
    let shown = &bytes[..bytes.len().min(max)];
    let dots = if bytes.len() > max { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}

/// A text whose control characters are escaped.
pub(crate) fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_harmless(character) {
            true => escaped.push(character),
            false => escaped.extend(character.escape_default()),
        }
    }
    escaped
}

/// Neither a control character nor one that changes the direction of what stands beside it.
fn is_harmless(character: char) -> bool {
    let marks = ['\u{200e}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    !character.is_control() && !marks.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(text("a\u{1b}[2Jb\nc\u{9b}d\u{202e}e"), "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e");
        assert_eq!(text("7 is a größer digit"), "7 is a größer digit");
        assert_eq!(bytes(b"\x89PNG\r\n\x1a\n", 32), "\\x89PNG\\r\\n\\x1a\\n");
    }

    #[test]
    fn only_the_beginning_is_shown() {
        assert_eq!(bytes(b"abcdef", 3), "abc...");
        assert_eq!(bytes(b"abc", 3), "abc");
        assert_eq!(bytes(b"", 3), "");
    }
}
