//! Rules of the house that no lint can hold.

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::repository;

/// The most lines of a source file without its tests.
const LINES_MAX: usize = 500;

/// The text files of the repository, with their paths from its root.
fn files() -> Vec<(PathBuf, String)> {
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git lists the files");
    assert!(list.status.success(), "git ls-files failed");
    let paths = String::from_utf8(list.stdout).unwrap();
    let read = |path: &str| {
        let bytes = std::fs::read(repository().join(path)).ok()?;
        Some((PathBuf::from(path), String::from_utf8(bytes).ok()?))
    };
    let files: Vec<_> =
        paths.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect();
    assert!(files.len() > 50, "only {} files are listed", files.len());
    files
}

/// Whether a source file is a test as a whole.
fn is_test(path: &Path) -> bool {
    let test = |part: &str| matches!(part, "tests" | "tests.rs" | "conformance");
    path.iter().filter_map(|part| part.to_str()).any(test)
}

/// The source files with what stands before their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut sources = files();
    sources.retain(|(path, _)| path.extension().is_some_and(|rs| rs == "rs") && !is_test(path));
    for (_, text) in &mut sources {
        if let Some(tests) = text.find("#[cfg(test)]\nmod tests {") {
            text.truncate(tests);
        }
    }
    sources
}

/// Fails with every place where one of the words is found.
fn banned(files: &[(PathBuf, String)], words: &[String]) {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "banned words {words:?}:\n{}", found.join("\n"));
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines, the limit is {LINES_MAX}",
            path.display()
        );
    }
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    banned(&sources(), &[".unwrap()".to_owned()]);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together, so that this file may be searched too.
    let words = [["TO", "DO"], ["FIX", "ME"], ["unimple", "mented!"], ["to", "do!"]];
    let mut files = files();
    // Such files are made by tools, and have these letters by chance or name the lints.
    files.retain(|(path, _)| {
        let generated = ["svg", "onnx", "lock"];
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        path != Path::new("Cargo.toml") && !generated.contains(&extension)
    });
    banned(&files, &words.map(|parts| parts.concat()));
}

#[test]
fn no_path_leads_into_someones_own_folders() {
    let words = [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/Us", "ers/"]];
    banned(&files(), &words.map(|parts| parts.concat()));
}

/// The targets of a document's links, without those into the web or the page itself.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let own = |target: &&str| !target.contains("://") && !target.starts_with(['#', '`']);
    targets.filter(own).map(|target| target.split('#').next().unwrap_or(target)).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, text) in files() {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let folder = repository().join(&path).parent().map(Path::to_owned).unwrap();
        for link in links(&text) {
            assert!(folder.join(link).exists(), "{}: {link:?} leads nowhere", path.display());
        }
    }
}
