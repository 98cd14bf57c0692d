//! Early stopping: training ends when validation has not improved for a while, and goes back to where it was best.

/// What to do after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may still improve.
    Continue,
    /// It did not improve for as many epochs as patience allows.
    Stop,
}

/// The best epoch so far, with what is to be restored.
#[derive(Debug)]
pub(super) struct Best<T> {
    pub(super) epoch: usize,
    pub(super) loss: f64,
    pub(super) snapshot: T,
}

#[derive(Debug)]
pub(super) struct EarlyStopping<T> {
    patience: usize,
    best: Option<Best<T>>,
}

impl<T> EarlyStopping<T> {
    /// Stops after `patience` epochs in a row without improvement.
    pub(super) fn new(patience: usize) -> Self {
        Self { patience, best: None }
    }

    /// Takes the validation loss of an epoch, counted from 1 without a gap; a snapshot is only made of the best.
    /// A loss that is no number is no improvement.
    pub(super) fn observe<E>(
        &mut self,
        epoch: usize,
        loss: f64,
        snapshot: impl FnOnce() -> Result<T, E>,
    ) -> Result<Verdict, E> {
        let bar = self.best.as_ref().map_or(f64::INFINITY, |best| best.loss);
        if loss < bar {
            self.best = Some(Best { epoch, loss, snapshot: snapshot()? });
        }
        let best_epoch = self.best.as_ref().map_or(0, |best| best.epoch);
        Ok(if epoch - best_epoch >= self.patience { Verdict::Stop } else { Verdict::Continue })
    }

    pub(super) fn into_best(self) -> Option<Best<T>> {
        self.best
    }
}
