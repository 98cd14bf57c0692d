//! The names of classes.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// What the classes of a model mean, by the dataset that it was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Labels {
    /// The digits 0 to 9.
    #[default]
    Mnist,
    /// Ten kinds of clothing.
    FashionMnist,
}

impl Labels {
    /// Every set of names.
    pub const ALL: [Self; 2] = [Self::Mnist, Self::FashionMnist];

    /// The name in configurations: `mnist` or `fashion-mnist`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    /// The names of the classes, in the order of the model's outputs.
    pub const fn classes(self) -> &'static [&'static str; 10] {
        match self {
            Self::Mnist => &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            Self::FashionMnist => &[
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ],
        }
    }

    /// The name of one class.
    pub fn get(self, class: usize) -> Option<&'static str> {
        self.classes().get(class).copied()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Labels {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|labels| labels.name() == name).ok_or_else(|| {
            Error::UnknownName {
                what: "labels",
                value: name.to_owned(),
                accepted: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

/// The class with the highest score, and that score; of equal ones the first. `None` if there is no score.
pub fn top(scores: &[f32]) -> Option<(usize, f32)> {
    let scores = scores.iter().copied().enumerate();
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best })
}
