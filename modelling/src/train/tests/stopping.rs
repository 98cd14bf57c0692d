use std::convert::Infallible;

use crate::train::stopping::{EarlyStopping, Verdict};

/// Feeds losses until it stops: (epochs done, best epoch, its snapshot).
fn run(patience: usize, losses: &[f64]) -> (usize, Option<(usize, f64)>) {
    let mut stopping = EarlyStopping::new(patience);
    for (index, loss) in losses.iter().enumerate() {
        let snapshot = || Ok::<_, Infallible>(*loss);
        if stopping.observe(index + 1, *loss, snapshot).unwrap() == Verdict::Stop {
            return (index + 1, stopping.into_best().map(|best| (best.epoch, best.snapshot)));
        }
    }
    (losses.len(), stopping.into_best().map(|best| (best.epoch, best.snapshot)))
}

#[test]
fn it_stops_after_patience_and_keeps_the_best() {
    assert_eq!(run(3, &[5.0, 4.0, 4.5, 4.2, 4.1, 1.0]), (5, Some((2, 4.0))));
}

#[test]
fn improvement_resets_patience() {
    assert_eq!(run(2, &[5.0, 6.0, 4.0, 6.0, 3.0, 9.0, 9.0, 1.0]), (7, Some((5, 3.0))));
}

#[test]
fn an_equal_loss_is_no_improvement() {
    assert_eq!(run(2, &[5.0, 5.0, 5.0, 1.0]), (3, Some((1, 5.0))));
}

#[test]
fn what_is_no_number_is_never_the_best() {
    assert_eq!(run(3, &[f64::NAN, 2.0, f64::NAN, f64::INFINITY, f64::NAN]), (5, Some((2, 2.0))));
    assert_eq!(run(2, &[f64::NAN, f64::NAN, 1.0]), (2, None));
}

#[test]
fn it_goes_on_while_it_improves() {
    assert_eq!(run(1, &[3.0, 2.0, 1.0]), (3, Some((3, 1.0))));
}
