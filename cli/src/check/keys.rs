//! Every mistake in a file, one after the other.

use broker::Error;
use broker::config::File;

use super::Finding;
use crate::connection::Place;

/// The sections that name something to connect to.
pub(super) const SECTIONS: [&str; 8] =
    ["broker", "embedded", "kafka", "pubsub", "redis", "queue", "model", "app2"];

/// Values that stand in for keys without which a section cannot be read on.
const STAND_INS: [(&str, &str, &str); 7] = [
    ("broker", "kind", "embedded"),
    ("embedded", "directory", "stand-in"),
    ("kafka", "bootstrap.servers", "stand-in"),
    ("pubsub", "project", "stand-in"),
    ("redis", "url", "redis://stand-in/"),
    ("model", "path", "stand-in"),
    ("queue", "url", "redis://stand-in/"),
];

/// Finds every mistake. What is left of the file is read as far as that is possible; `file` is
/// changed on the way.
pub(super) fn check(file: &mut File, unreadable: Vec<Error>) -> (Option<Place>, Vec<Finding>) {
    let mut findings: Vec<Finding> = unreadable.iter().map(finding).collect();
    loop {
        let error = match Place::from_file(file) {
            Ok(place) => return (Some(place), findings),
            Err(error) => error,
        };
        let (section, key) = (error.context("section"), error.context("key"));
        let found = finding(&error);
        let is_new = !findings.iter().any(|old| is_same_place(old, &found));
        if is_new {
            findings.push(found);
        }
        if !make_way(file, section, key) {
            return (None, findings);
        }
    }
}

/// A key that was left away because its value is wrong may be missed next: that is one mistake.
fn is_same_place(old: &Finding, new: &Finding) -> bool {
    new.section.is_some() && old.section == new.section && old.key == new.key
}

/// Takes a mistake out of the way. False where that is beyond what can be done, so that the
/// caller's loop ends: each call takes something away, or puts in a value that stays.
fn make_way(file: &mut File, section: Option<&str>, key: Option<&str>) -> bool {
    let Some(section) = section else { return false };
    let stand_in = STAND_INS.iter().find(|(of, name, _)| *of == section && Some(*name) == key);
    match (key, stand_in) {
        (_, Some((section, key, value))) if !file.has_key(section, key) => {
            file.set(section, key, value);
            if *section == "broker" {
                stand_in_broker(file);
            }
            true
        }
        (Some(key), _) if file.has_key(section, key) => {
            file.remove_key(section, key);
            true
        }
        // The mistake is of several keys at once, or the section is one that nobody knows.
        _ if file.has_section(section) => {
            file.remove_section(section);
            true
        }
        _ => false,
    }
}

/// The broker that stands in brings its own section: the file's need not be right, as nobody
/// asked for it.
fn stand_in_broker(file: &mut File) {
    file.remove_section("embedded");
    file.set("embedded", "directory", "stand-in");
}

/// A mistake as it is reported. The file is named once, above all of them.
pub(super) fn finding(error: &Error) -> Finding {
    let mut message = error.message().to_owned();
    if let Some(variable) = error.context("variable") {
        message += &format!(": {variable}");
    }
    if let Some(source) = std::error::Error::source(error) {
        message += &format!(": {source}");
    }
    let own = |name| error.context(name).map(str::to_owned);
    Finding {
        section: own("section"),
        key: own("key"),
        is_ok: false,
        reason: Some(error.kind().into()),
        ..Finding::ok("file", message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    /// The places of all mistakes, in the order of their names.
    fn mistakes(text: &str) -> Vec<String> {
        let environment: HashMap<&str, &str> = HashMap::new();
        let (mut file, unreadable) =
            File::parse_leniently(Path::new("test.ini"), text, &environment).unwrap();
        let (_, findings) = check(&mut file, unreadable);
        let place = |finding: &Finding| {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}", part(&finding.section), part(&finding.key))
        };
        let mut places: Vec<String> = findings.iter().map(place).collect();
        places.sort();
        places
    }

    const SOUND: &str = "[broker]\nkind = embedded\n[embedded]\ndirectory = x\n";
    const MODEL: &str = "[model]\npath = cnn.onnx\n";

    #[test]
    fn a_sound_file_has_no_mistakes() {
        assert!(mistakes(SOUND).is_empty());
        assert!(mistakes(&format!("{SOUND}{MODEL}")).is_empty());
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let text = "[broker]\nkind = embedded\nknd = x\n\
                    [embedded]\ndirectory = x\nretention = long\ndurability = some\nx = 1\ny = 2\n\
                    [topics]\nimges = a\npartitions = many\n[topcs]\na = b\n\
                    [model]\nworkers = 0\nbatch = 5000\nprecision = fp8\n\
                    [queue]\nkind = redis\nlease = ${NO_SUCH_VARIABLE}\n[app2]\ndatabase =\n";
        let expected = [
            "app2/database",
            "broker/knd",
            "embedded/durability",
            "embedded/retention",
            "embedded/x",
            "embedded/y",
            "model/batch",
            "model/path",
            "model/precision",
            "model/workers",
            "queue/lease",
            "queue/url",
            "topcs/",
            "topics/imges",
            "topics/partitions",
        ];
        assert_eq!(mistakes(text), expected);
    }

    #[test]
    fn what_follows_from_a_mistake_is_not_told_again() {
        let rest = format!("[embedded]\nx = 1\n{MODEL}[app2]\ngroup = a b\n");
        assert_eq!(mistakes(&rest), ["app2/group", "broker/kind"]);
        let unknown = format!("[broker]\nkind = rabbit\n{rest}");
        assert_eq!(mistakes(&unknown), ["app2/group", "broker/kind"]);
        let secret =
            format!("[broker]\nkind = embedded\n[embedded]\ndirectory = ${{NONE}}\n{MODEL}");
        assert_eq!(mistakes(&secret), ["embedded/directory"]);
    }

    #[test]
    fn a_mistake_of_several_keys_is_told_once_and_the_rest_is_read() {
        let twice = "[topics]\nimages = a\npredictions = a\n";
        let text = format!("{SOUND}{twice}{MODEL}batch = 5000\n");
        assert_eq!(mistakes(&text), ["model/batch", "topics/images, predictions, dead_letters"]);
    }
}
