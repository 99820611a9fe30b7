//! Waiting for conditions. Tests wait for what they need, never for an amount of time.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends one wait with an error: that under way, or the next. For a Ctrl-C.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Takes an interruption back that no wait has met.
pub fn resume() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// How often a condition is looked at: a fraction of anything a test waits for.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; an error that names `what` when it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || Ok::<_, &str>(condition().then_some(()))).map(|_| ())
}

/// Waits until `attempt` gives a value; when it does not within `limit`, the error tells its last
/// failure. An attempt fails with `Err`, or with `Ok(None)` where there is nothing to tell. Where
/// waiting longer is of no use, the value may itself be an error.
pub fn wait_for<T, E: std::fmt::Display>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<Option<T>, E>) -> Result<T> {
    let started = Instant::now();
    loop {
        let outcome = attempt();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if INTERRUPTED.swap(false, Ordering::Relaxed) {
            bail!("interrupted while waiting until {what}");
        }
        if started.elapsed() >= limit {
            let last = outcome.err().map_or_else(String::new, |e| format!(": {e:#}"));
            bail!("waited {} s in vain until {what}{last}", limit.as_secs());
        }
        std::thread::sleep(GLANCE);
    }
}
