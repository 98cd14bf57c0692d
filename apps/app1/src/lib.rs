//! app1.
