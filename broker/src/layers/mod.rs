//! What every backend gets on top: wrappers that keep the same contract.
//!
//! The factory puts them on in a fixed order; today there is one, [`Delivery`].

mod delivery;
mod letter;

pub use delivery::Delivery;
