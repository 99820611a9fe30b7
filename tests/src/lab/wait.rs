//! Waiting for conditions. Tests wait for what they need, never for an amount of time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at: a fraction of anything a test waits for.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; an error that names `what` when it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || Ok::<_, &str>(condition().then_some(()))).map(|_| ())
}

/// Waits until `attempt` gives a value; when it does not within `limit`, the error tells its last
/// failure. An attempt fails with `Err`, or with `Ok(None)` where there is nothing to tell.
pub fn wait_for<T, E: std::fmt::Display>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<Option<T>, E>) -> Result<T> {
    let started = Instant::now();
    loop {
        let outcome = attempt();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            let last = outcome.err().map_or_else(String::new, |e| format!(": {e:#}"));
            bail!("waited {} s in vain until {what}{last}", limit.as_secs());
        }
        std::thread::sleep(GLANCE);
    }
}
