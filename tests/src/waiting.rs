//! Waiting for what must come, without a limit that a slow machine could miss.

use std::time::{Duration, Instant};

use crate::program::Running;

/// After this long a test hangs; no sound run on any machine comes near it.
pub const HANG: Duration = Duration::from_secs(300);

const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is a value; `what` names what is missing where it never comes.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < HANG, "waited in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The same, while programs run that must not end before.
pub fn wait_beside<T>(
    running: &mut [Running],
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    wait_until(what, || {
        running.iter_mut().for_each(Running::check_alive);
        look()
    })
}
