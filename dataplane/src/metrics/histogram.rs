//! Histograms with upstream's buckets.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Upper bounds in seconds, ascending; the bucket without bound is not among them.
#[derive(Debug, Clone)]
pub struct Histogram {
    pub bounds: &'static [f64],
    /// Observations at or below each bound and above the one before; the last is above all.
    pub counts: Vec<u64>,
    pub sum: f64,
}

/// 1 ms doubled up to 16.384 s.
pub static SYNC_BOUNDS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// 0.25 and 0.5; each second of the first minute; every 5 s of the second; every 30 s up to five minutes.
pub static PROGRAMMING_BOUNDS: [f64; 80] = programming_bounds();

const fn programming_bounds() -> [f64; 80] {
    let mut bounds = [0.0; 80];
    bounds[0] = 0.25;
    bounds[1] = 0.5;
    let mut index = 2;
    let mut second = 1;
    while second < 60 {
        bounds[index] = second as f64;
        index += 1;
        second += 1;
    }
    while second < 120 {
        bounds[index] = second as f64;
        index += 1;
        second += 5;
    }
    while second <= 300 {
        bounds[index] = second as f64;
        index += 1;
        second += 30;
    }
    assert!(index == 80);
    bounds
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_are_upstreams() {
        assert_eq!(SYNC_BOUNDS.len(), 15);
        assert!((0..15).all(|k| SYNC_BOUNDS[k] == 0.001 * f64::from(1 << k)));
        assert_eq!(PROGRAMMING_BOUNDS[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(PROGRAMMING_BOUNDS[60..63], [59.0, 60.0, 65.0]);
        assert_eq!(PROGRAMMING_BOUNDS[72..], [115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]);
    }

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(&SYNC_BOUNDS);
        for millis in [1, 2, 3, 20_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[2], histogram.counts[15]), (1, 1, 1, 1));
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum - 20.006).abs() < 1e-9);
    }
}
