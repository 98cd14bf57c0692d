//! How far the images are, stage by stage: plain arithmetic.

/// What was seen of the stages at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Messages in the images topic.
    pub(super) published: u64,
    /// Those of them that the model server has settled: predicted and queued, or put aside.
    pub(super) settled: u64,
    /// Messages in the predictions topic.
    pub(super) forwarded: u64,
    /// Rows in the database.
    pub(super) persisted: u64,
    /// Messages among the dead letters.
    pub(super) dead_lettered: u64,
}

impl Counts {
    /// What the model gave a prediction for. A dead letter is stored before its source is
    /// settled, so for a moment there may be more of them.
    pub(super) fn predicted(&self) -> u64 {
        self.settled.saturating_sub(self.dead_lettered)
    }

    /// Whether everything that was published, each counted once, has arrived.
    pub(super) fn covers(&self, published: u64, dead_lettered: u64) -> bool {
        self.persisted + dead_lettered >= published
    }

    /// The first stage that has work and does none.
    pub(super) fn standing(&self, all_published: bool) -> String {
        let Self { published, settled, forwarded, persisted, dead_lettered } = *self;
        let predicted = self.predicted();
        if !all_published {
            return format!("app1 stands still after publishing {published}");
        }
        if settled < published {
            return format!("model_server_sub stands still at {settled} of {published}");
        }
        if forwarded < predicted {
            return format!("model_server_pub stands still at {forwarded} of {predicted}");
        }
        if persisted < forwarded {
            return format!("app2 stands still at {persisted} of {forwarded}");
        }
        format!(
            "no stage has work left, and {persisted} persisted and {dead_lettered} dead-lettered \
             are not the {published} published"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(numbers: [u64; 5]) -> Counts {
        let [published, settled, forwarded, persisted, dead_lettered] = numbers;
        Counts { published, settled, forwarded, persisted, dead_lettered }
    }

    #[test]
    fn dead_letters_are_settled_but_not_predicted() {
        assert_eq!(counts([10, 8, 5, 5, 2]).predicted(), 6);
        assert_eq!(counts([10, 0, 0, 0, 2]).predicted(), 0);
    }

    #[test]
    fn all_has_arrived_when_rows_and_dead_letters_make_up_what_was_published() {
        assert!(!counts([10, 10, 7, 7, 2]).covers(10, 2));
        assert!(counts([10, 10, 8, 8, 2]).covers(10, 2));
        // Two messages of one id are one item.
        assert!(counts([11, 11, 9, 8, 2]).covers(10, 2));
        // A dead letter that came twice counts once.
        assert!(!counts([10, 10, 7, 7, 3]).covers(10, 2));
    }

    #[test]
    fn the_first_stage_that_lags_is_named() {
        let cases = [
            (counts([5, 5, 5, 5, 0]), false, "app1"),
            (counts([9, 5, 5, 5, 0]), true, "model_server_sub stands still at 5 of 9"),
            (counts([9, 9, 5, 4, 1]), true, "model_server_pub stands still at 5 of 8"),
            (counts([9, 9, 8, 4, 1]), true, "app2 stands still at 4 of 8"),
            (counts([9, 9, 8, 8, 1]), true, "no stage has work left"),
        ];
        for (counts, all_published, expected) in cases {
            let shown = counts.standing(all_published);
            assert!(shown.contains(expected), "{shown}");
        }
    }
}
