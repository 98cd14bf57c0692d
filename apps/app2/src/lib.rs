//! app2.
