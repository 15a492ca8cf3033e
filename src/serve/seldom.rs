//! What strangers make happen is logged seldom: they could fill the log with it.

use std::time::{Duration, Instant};

/// From one time that it is said to the next, at least.
const APART: Duration = Duration::from_secs(60);

/// Counts something, and tells when it is worth a line.
#[derive(Debug, Default)]
pub struct Seldom {
    unsaid: u64,
    said: Option<Instant>,
}

impl Seldom {
    /// It happened once more. How often it did since that was last said, if it is to be said now: at the first time, and
    /// then once a minute at most.
    pub fn happened(&mut self) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| said.elapsed() < APART) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_once_a_minute_with_how_often_it_happened() {
        let mut seldom = Seldom::default();
        assert_eq!([seldom.happened(), seldom.happened(), seldom.happened()], [Some(1), None, None]);
        seldom.said = seldom.said.and_then(|said| said.checked_sub(APART));
        assert_eq!([seldom.happened(), seldom.happened()], [Some(3), None]);
    }
}
