//! How messages go out one of which may have killed those who received it.
//!
//! The first of them go singly, so that only the one that kills is counted further. Those that
//! follow go in rounds that double: where the kills had another cause, a long log does not
//! crawl. A round begins when nothing of the one before is out.

/// So many rounds are of a single message.
const SINGLES: u32 = 16;
/// No round is larger than two to this power.
const GROWTH_MAX: u32 = 20;

#[derive(Debug, Default)]
pub(super) struct Caution {
    /// Below this offset messages go out in rounds.
    until: u64,
    /// How many more of the messages to come may have been out when an owner died.
    suspects: usize,
    rounds: u32,
    /// How many more messages the round has.
    left: usize,
}

impl Caution {
    /// Is cautious with the next `suspects` messages.
    pub(super) fn with(suspects: usize) -> Self {
        Self { suspects, ..Self::default() }
    }

    /// Takes note of a message that was fetched.
    pub(super) fn fetched(&mut self, offset: u64) {
        if self.suspects > 0 {
            self.suspects -= 1;
            self.until = offset + 1;
        }
    }

    /// Is cautious with the messages below `offset` too.
    #[cfg(feature = "redis")]
    pub(super) fn reach(&mut self, offset: u64) {
        self.until = self.until.max(offset);
    }

    pub(super) fn is_about(&self, offset: u64) -> bool {
        offset < self.until
    }

    /// Begins a round where the one before went out in full; none of it is out any more.
    pub(super) fn go_on(&mut self) {
        if self.left > 0 {
            return;
        }
        self.left = 1 << self.rounds.saturating_sub(SINGLES).min(GROWTH_MAX);
        self.rounds += 1;
    }

    /// Whether this message may go out now.
    pub(super) fn allows(&self, offset: u64) -> bool {
        self.left > 0 || !self.is_about(offset)
    }

    /// Takes note of a message that went out.
    pub(super) fn lent(&mut self, offset: u64) {
        if self.is_about(offset) {
            self.left = self.left.saturating_sub(1);
        }
    }
}
