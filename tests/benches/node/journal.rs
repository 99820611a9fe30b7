//! The daemon's own record of statuses, followed while it is written: no question disturbs the daemon.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::Daemon;
use longshore_tests::lab::daemon::is_ready;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(240);

pub struct Journal {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
    glance: Duration,
}

impl Journal {
    /// Follows from here on. What was written before does not show.
    pub fn tail(daemon: &Daemon) -> Result<Journal> {
        let path = daemon.state_directory().join("pods.jsonl");
        let mut file = File::open(&path).with_context(|| format!("no journal at {}", path.display()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Journal { path, file, rest: Vec::new(), glance: Duration::from_millis(1) })
    }

    /// Records written since the last call.
    pub fn news(&mut self) -> Result<Vec<Value>> {
        self.file.read_to_end(&mut self.rest)?;
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let found = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice).collect::<Result<_, _>>()?;
        // The daemon may have written the journal anew, under the same name.
        if fs::metadata(&self.path)?.ino() != self.file.metadata()?.ino() {
            self.file = File::open(&self.path)?;
            self.rest.clear();
        }
        Ok(found)
    }

    /// Waits for a record that fulfils a condition; the moment it was seen.
    pub fn wait(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Instant> {
        let began = Instant::now();
        loop {
            if self.news()?.iter().any(&condition) {
                return Ok(Instant::now());
            }
            ensure!(began.elapsed() < PATIENCE, "not seen: {what}");
            std::thread::sleep(self.glance);
        }
    }

    /// Waits until so many pods have become Ready; how long each took, in ascending order.
    pub fn wait_ready(&mut self, began: Instant, count: usize) -> Result<Vec<Duration>> {
        let mut seen: BTreeMap<String, Duration> = BTreeMap::new();
        while seen.len() < count {
            ensure!(began.elapsed() < PATIENCE, "{} of {count} pods are Ready", seen.len());
            for record in self.news()?.iter().filter(|r| is_ready(r)) {
                seen.entry(record["uid"].to_string()).or_insert_with(|| began.elapsed());
            }
            std::thread::sleep(self.glance);
        }
        let mut out: Vec<Duration> = seen.into_values().collect();
        out.sort();
        Ok(out)
    }
}
