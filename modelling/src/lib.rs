//! modelling.
