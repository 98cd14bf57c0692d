//! Tokens of OAUTHBEARER, from a file that someone else keeps fresh, such as a projected
//! service account's.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;

/// How long a token serves before the file is read again.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// Where tokens come from; nowhere where OAUTHBEARER is not used.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens(Option<Arc<Path>>);

impl Tokens {
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self(file.map(Arc::from))
    }

    /// Whether there are any.
    pub(super) fn are_used(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the token of now. What it says, and of whom, is the brokers' to judge.
    pub(super) fn read(&self) -> Result<OAuthToken, Box<dyn StdError>> {
        let file = self.0.as_deref().ok_or("oauth_token_file is not set")?;
        let token = std::fs::read_to_string(file)
            .map_err(|error| format!("oauth_token_file {}: {error}", file.display()))?;
        let until = SystemTime::now().duration_since(UNIX_EPOCH)? + READ_AGAIN;
        Ok(OAuthToken {
            token: token.trim().to_owned(),
            principal_name: "forebay".to_owned(),
            lifetime_ms: i64::try_from(until.as_millis())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_anew_each_time_and_a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let tokens = Tokens::new(Some(&file));
        let problem = tokens.read().err().unwrap().to_string();
        assert!(problem.contains("oauth_token_file") && problem.contains("token"), "{problem}");
        for token in ["one", "two"] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            assert_eq!(tokens.read().unwrap().token, token);
        }
        assert!(Tokens::default().read().is_err());
    }
}
