//! Setting keys of an ini text while all else of it, comments most of all, stays as it is.

/// An ini text under edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ini {
    lines: Vec<String>,
}

impl Ini {
    pub(super) fn new(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Gives a key its value: in its place where it is set already, else right below the head
    /// of its section, which is added where it is missing.
    pub(super) fn set(&mut self, section: &str, key: &str, value: &str) {
        let line = format!("{key} = {value}");
        let places = self.places(section, key);
        match (places.split_first(), self.head(section)) {
            (Some((first, again)), _) => {
                self.lines[*first] = line;
                again.iter().rev().for_each(|index| drop(self.lines.remove(*index)));
            }
            (None, Some(head)) => self.lines.insert(head + 1, line),
            (None, None) => {
                self.lines.extend([String::new(), format!("[{section}]"), line]);
            }
        }
    }

    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn head(&self, section: &str) -> Option<usize> {
        self.lines.iter().position(|line| section_of(line) == Some(section))
    }

    /// Where the key is set; a section may be written in several parts.
    fn places(&self, section: &str, key: &str) -> Vec<usize> {
        let mut within = false;
        let mut places = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            match section_of(line) {
                Some(name) => within = name == section,
                None if within && key_of(line) == Some(key) => places.push(index),
                None => {}
            }
        }
        places
    }
}

/// The environment variables that a text names as `${NAME}` or `${NAME:-default}`, outside of
/// comments.
pub(super) fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for line in text.lines().filter(|line| key_of(line).is_some()) {
        for part in line.split("${").skip(1) {
            let end = part.find([':', '}']).unwrap_or(part.len());
            if !names.contains(&&part[..end]) {
                names.push(&part[..end]);
            }
        }
    }
    names
}

fn section_of(line: &str) -> Option<&str> {
    let (name, _) = line.trim().strip_prefix('[')?.split_once(']')?;
    Some(name.trim())
}

fn key_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    Some(line[..line.find(['=', ':'])?].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, (section, key, value): (&str, &str, &str), expected: &str) {
        let mut ini = Ini::new(text);
        ini.set(section, key, value);
        assert_eq!(ini.text(), expected);
    }

    #[test]
    fn a_key_is_replaced_in_its_place_and_comments_stay() {
        let text = "# head\n[a]\n# about k\nk = 1\nl = 2\n\n[b]\nk = 3\n";
        check(text, ("a", "k", "9"), "# head\n[a]\n# about k\nk = 9\nl = 2\n\n[b]\nk = 3\n");
        check(text, ("b", "k", "9"), "# head\n[a]\n# about k\nk = 1\nl = 2\n\n[b]\nk = 9\n");
    }

    #[test]
    fn a_key_that_is_only_in_a_comment_is_not_set() {
        check("[a]\n# k = 1\n;k = 2\n", ("a", "k", "9"), "[a]\nk = 9\n# k = 1\n;k = 2\n");
    }

    #[test]
    fn a_key_or_section_that_is_missing_is_added() {
        check("[a]\nkk = 1\n", ("a", "k", "9"), "[a]\nk = 9\nkk = 1\n");
        check("[a]\nl = 1", ("b", "k", "9"), "[a]\nl = 1\n\n[b]\nk = 9\n");
        check("", ("b", "k", "9"), "\n[b]\nk = 9\n");
    }

    #[test]
    fn odd_spacing_colons_and_repeats_are_understood() {
        check("[ a ]\n  k:1\n k=2\nl=3\n", ("a", "k", "9"), "[ a ]\nk = 9\nl=3\n");
        check("[a]\nk=1\n[b]\n[a]\nk=2\n", ("a", "k", "9"), "[a]\nk = 9\n[b]\n[a]\n");
    }

    #[test]
    fn variables_are_found_where_they_are_used() {
        let text = "# ${NO}\na = ${A:-x}/${B}\nb = ${A}\nc = ${C\n";
        assert_eq!(variables(text), ["A", "B", "C"]);
    }
}
