//! The files below a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model_server::process::{Failure, Reason};

/// All files below `directory` in the order of their paths. Hidden ones are left out, and so is
/// what is no file; a link to a file counts, one to a directory does not, since it may go round.
pub(super) fn walk(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        list(&directory, &mut files, &mut open).map_err(|error| {
            Failure::new(Reason::Input, format!("cannot read {directory:?}")).because(error)
        })?;
    }
    if files.is_empty() {
        return Err(Failure::new(Reason::Input, format!("{directory:?} holds no files")));
    }
    files.sort_unstable();
    Ok(files)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>, open: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            open.push(path);
        } else if kind.is_file() || (kind.is_symlink() && may_be_file(&path)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a link leads to a file, or to nothing: that is told of when its turn comes.
fn may_be_file(link: &Path) -> bool {
    fs::metadata(link).map_or(true, |target| target.is_file())
}
