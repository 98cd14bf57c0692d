//! Names of topics and groups, checked when they are made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// The longest name that every backend takes, in bytes.
pub const NAME_LENGTH_MAX: usize = 249;

fn check(what: &'static str, name: &str) -> Result<(), Error> {
    let problem = if name.is_empty() {
        "the name is empty"
    } else if name.len() > NAME_LENGTH_MAX {
        "the name is longer than 249 bytes"
    } else if name == "." || name == ".." {
        "the name is a relative directory"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        "the name may hold only letters, digits, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::ConfigInvalid, "name", problem).with(what, format!("{name:?}")))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the name: 1 to 249 ASCII letters, digits, `.`, `_` and `-`.
            pub fn new(name: &str) -> Result<Self, Error> {
                check($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The name of a topic.
    Topic,
    "topic"
);
name!(
    /// The name of a consumer group, whose members share a topic's messages.
    Group,
    "group"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_what_every_backend_takes() {
        for good in ["images", "a", "A.b_c-9", &"x".repeat(249)] {
            assert_eq!(Topic::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert_eq!(Group::new(bad).unwrap_err().kind(), ErrorKind::ConfigInvalid, "{bad:?}");
        }
    }
}
