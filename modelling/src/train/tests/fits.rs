use std::collections::HashMap;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bars;
use crate::torch::PIXELS;
use crate::train::{
    Confusion, Distortion, Ended, Epoch, Error, Examples, Fit, Observer, Quiet, Settings, fit,
};
use crate::{Checkpoint, Options, Runtime, checkpoint};

fn settings() -> Settings {
    Settings { epochs_max: 3, batch_size: 16, threads: 1, ..Settings::default() }
}

fn train(settings: &Settings, observer: &mut dyn Observer) -> Result<Fit, Error> {
    fit(&bars(200), &bars(40), settings, observer)
}

fn accuracy(fit: &Fit, examples: &Examples) -> f64 {
    let bytes = fit.weights.to_safetensors(HashMap::new()).unwrap();
    let checkpoint = Checkpoint::from_bytes(Path::new("cnn.safetensors"), bytes.into()).unwrap();
    let options = Options { runtime: Runtime::Torch, ..Options::default() };
    let mut model = checkpoint::load(&checkpoint, &options).unwrap();
    Confusion::measure(model.as_mut(), examples).unwrap().accuracy()
}

#[test]
fn training_learns_what_can_be_learned() {
    let fit = train(&Settings { epochs_max: 8, ..settings() }, &mut Quiet).unwrap();
    assert!(accuracy(&fit, &bars(100)) > 0.9, "{:?}", fit.epochs);
}

#[test]
fn equal_seeds_give_equal_weights_and_others_do_not() {
    let first = train(&settings(), &mut Quiet).unwrap();
    let again = train(&settings(), &mut Quiet).unwrap();
    assert!(first.weights == again.weights);
    let losses =
        |fit: &Fit| fit.epochs.iter().map(|epoch| epoch.validation_loss).collect::<Vec<_>>();
    assert_eq!(losses(&first), losses(&again));
    let other = train(&Settings { seed: 2, ..settings() }, &mut Quiet).unwrap();
    assert!(first.weights != other.weights);
}

/// A step far too large, so that later epochs are worse than earlier ones.
#[test]
fn the_best_weights_are_restored_not_the_last() {
    let rough = Settings { epochs_max: 12, learning_rate: 0.02, patience: 2, ..settings() };
    let fit = train(&rough, &mut Quiet).unwrap();
    let best = &fit.epochs[fit.best_epoch - 1];
    let smallest =
        fit.epochs.iter().map(|epoch| epoch.validation_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(best.validation_loss, smallest);
    assert!(fit.best_epoch < fit.epochs.len(), "the last epoch must not be the best for this test");
    assert_eq!(fit.epochs.len(), fit.best_epoch + 2);
    assert_eq!(fit.ended, Ended::Converged);
    assert_eq!(accuracy(&fit, &bars(40)), best.validation_accuracy);

    // Training only up to the best epoch ends with the very same weights.
    let short = Settings { epochs_max: fit.best_epoch, ..rough };
    assert!(train(&short, &mut Quiet).unwrap().weights == fit.weights);
}

/// Asks to stop as soon as so many epochs are over.
struct Impatient {
    epochs: usize,
    done: usize,
}

impl Observer for Impatient {
    fn end_epoch(&mut self, _: &Epoch) {
        self.done += 1;
    }

    fn is_cancelled(&self) -> bool {
        self.done >= self.epochs
    }
}

#[test]
fn a_cancelled_run_keeps_the_best_so_far() {
    let whole = train(&Settings { epochs_max: 2, ..settings() }, &mut Quiet).unwrap();
    let cancelled = train(&settings(), &mut Impatient { epochs: 2, done: 0 }).unwrap();
    assert_eq!(cancelled.ended, Ended::Cancelled);
    assert_eq!(cancelled.epochs.len(), 2);
    assert!(cancelled.weights == whole.weights);
}

#[test]
fn a_run_cancelled_at_once_gives_no_untrained_weights() {
    let outcome = train(&settings(), &mut Impatient { epochs: 0, done: 0 });
    assert!(matches!(outcome, Err(Error::Cancelled)));
}

#[test]
fn diverged_training_is_an_error() {
    let error = train(&Settings { learning_rate: 1e30, ..settings() }, &mut Quiet).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn settings_out_of_range_are_named() {
    type Change = fn(&mut Settings);
    let cases: [(&str, Change); 6] = [
        ("epochs is 0, expected at least 1", |settings| settings.epochs_max = 0),
        ("batch size is 0, expected at least 1", |settings| settings.batch_size = 0),
        ("patience is 0, expected at least 1", |settings| settings.patience = 0),
        ("threads is 0, expected at least 1", |settings| settings.threads = 0),
        ("learning rate is -1, expected more than 0", |settings| settings.learning_rate = -1.0),
        ("learning rate is NaN, expected more than 0", |settings| {
            settings.learning_rate = f64::NAN
        }),
    ];
    for (expected, change) in cases {
        let mut settings = settings();
        change(&mut settings);
        assert_eq!(train(&settings, &mut Quiet).unwrap_err().to_string(), expected);
    }
}

#[test]
fn one_in_ten_is_held_back_and_none_is_lost() {
    let all = bars(200);
    let (training, validation) = all.split(3);
    assert_eq!((training.len(), validation.len()), (180, 20));
    let sorted = |examples: &[&Examples]| {
        let mut images: Vec<Vec<u8>> = examples
            .iter()
            .flat_map(|examples| examples.pixels().chunks(PIXELS).zip(examples.labels()))
            .map(|(image, label)| [image, &[*label]].concat())
            .collect();
        images.sort();
        images
    };
    assert_eq!(sorted(&[&training, &validation]), sorted(&[&all]));
    assert_eq!(all.split(3), (training.clone(), validation));
    assert!(all.split(4).0 != training);
}

#[test]
fn examples_that_do_not_fit_are_refused() {
    assert!(Examples::new(vec![0; PIXELS], vec![9]).is_some());
    assert!(Examples::new(vec![0; PIXELS], vec![10]).is_none());
    assert!(Examples::new(vec![0; PIXELS + 1], vec![9]).is_none());
    assert!(Examples::new(vec![0; PIXELS], vec![1, 2]).is_none());
}

fn distorted(distortion: Distortion, seed: u64) -> Vec<f32> {
    let mut target = vec![0.0; PIXELS];
    distortion.apply(bars(1).image(0), &mut target, &mut StdRng::seed_from_u64(seed));
    target
}

#[test]
fn no_distortion_leaves_images_as_they_are() {
    let expected: Vec<f32> =
        bars(1).image(0).iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
    assert_eq!(distorted(Distortion::NONE, 1), expected);
}

#[test]
fn distortions_follow_the_seed_and_stay_in_range() {
    let once = distorted(Distortion::LIGHT, 1);
    assert_eq!(once, distorted(Distortion::LIGHT, 1));
    assert_ne!(once, distorted(Distortion::LIGHT, 2));
    assert_ne!(once, distorted(Distortion::NONE, 1));
    assert!(once.iter().all(|grey| (0.0..=1.0).contains(grey)));
}

#[test]
fn a_shift_by_nothing_else_moves_the_centre_of_mass() {
    let shift = Distortion { shift_pixels: 2.0, ..Distortion::NONE };
    let mut dot = vec![0; PIXELS];
    dot[14 * 28 + 14] = 255;
    let mut target = vec![0.0; PIXELS];
    for seed in 0..20 {
        shift.apply(&dot, &mut target, &mut StdRng::seed_from_u64(seed));
        let mass: f32 = target.iter().sum();
        let moment = |place: fn(usize) -> usize| {
            target.iter().enumerate().map(|(index, grey)| place(index) as f32 * grey).sum::<f32>()
        };
        let (x, y) = (moment(|index| index % 28) / mass, moment(|index| index / 28) / mass);
        assert!((mass - 1.0).abs() < 1e-3, "{mass}");
        assert!((x - 14.0).abs() <= 2.01 && (y - 14.0).abs() <= 2.01, "({x}, {y})");
    }
}
