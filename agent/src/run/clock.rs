//! The only reader of the clocks.

use crate::time::{Mono, Now, Wall};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where monotonic time begins: long before the process, so that spans into the past stay positive.
const BEFORE: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

pub fn mono() -> Mono {
    let start = origin();
    Mono(BEFORE + start.elapsed())
}

pub fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: mono(), wall: Wall(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)) }
}

/// The instant of a monotonic time, for timers.
pub fn instant(at: Mono) -> tokio::time::Instant {
    let wait = at - mono();
    tokio::time::Instant::now() + wait
}
