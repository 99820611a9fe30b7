//! What a kubelet's metrics say of its certificates.

use crate::cluster::certificate::Purpose;
use crate::time::Wall;
use longshore_dataplane::metrics::histogram::Histogram;
use longshore_dataplane::metrics::text::Page;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// From a minute to four years, in seconds.
static LIVED: [f64; 10] =
    [60.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0, 31_104_000.0, 124_416_000.0];

#[derive(Default)]
struct Of {
    errors: Cell<u64>,
    until: Cell<Option<Wall>>,
}

pub struct Figures {
    client: Of,
    serving: Of,
    /// How long serving certificates lived until there was the next.
    lived: RefCell<Histogram>,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures { client: Of::default(), serving: Of::default(), lived: RefCell::new(Histogram::new(&LIVED)) }
    }
}

impl Figures {
    fn of(&self, purpose: Purpose) -> &Of {
        match purpose {
            Purpose::Client => &self.client,
            Purpose::Serving => &self.serving,
        }
    }

    pub fn until(&self, purpose: Purpose, until: Option<Wall>) {
        self.of(purpose).until.set(until);
    }

    pub fn failed(&self, purpose: Purpose) {
        let errors = &self.of(purpose).errors;
        errors.set(errors.get() + 1);
    }

    /// Another came; the one before had lived so long.
    pub fn rotated(&self, purpose: Purpose, lived: Option<Duration>) {
        if let (Purpose::Serving, Some(lived)) = (purpose, lived) {
            self.lived.borrow_mut().observe(lived);
        }
    }

    pub fn show(&self, page: &mut Page, now: Wall) {
        // Below zero once it has ended; without one, or once it is no longer used, for ever.
        let left = |of: &Of| of.until.get().map_or_else(|| "+Inf".to_owned(), |u| u.seconds().saturating_sub(now.seconds()).to_string());
        let errors = "Counter of certificate renewal errors.";
        page.single("kubelet_certificate_manager_client_expiration_renew_errors", "counter", errors, self.client.errors.get());
        page.single(
            "kubelet_certificate_manager_client_ttl_seconds",
            "gauge",
            "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry \
             (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
            left(&self.client),
        );
        let lived = "kubelet_certificate_manager_server_rotation_seconds";
        page.metric(lived, "histogram", "Histogram of the number of seconds the previous certificate lived before being rotated.");
        page.histogram(lived, &[], &self.lived.borrow());
        page.single(
            "kubelet_certificate_manager_server_ttl_seconds",
            "gauge",
            "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate \
             expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
            left(&self.serving),
        );
        page.single("kubelet_server_expiration_renew_errors", "counter", errors, self.serving.errors.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_metrics_are_shown() {
        let f = Figures::default();
        let shown = |f: &Figures| {
            let mut page = Page::default();
            f.show(&mut page, Wall::from_seconds(100));
            page.into_string()
        };
        assert!(shown(&f).contains("\nkubelet_certificate_manager_client_ttl_seconds +Inf\n"));
        f.until(Purpose::Client, Some(Wall::from_seconds(90)));
        f.failed(Purpose::Serving);
        f.rotated(Purpose::Serving, Some(Duration::from_secs(90)));
        f.rotated(Purpose::Client, Some(Duration::from_secs(90)));
        let text = shown(&f);
        for line in [
            "kubelet_certificate_manager_client_ttl_seconds -10",
            "kubelet_certificate_manager_client_expiration_renew_errors 0",
            "kubelet_server_expiration_renew_errors 1",
            "kubelet_certificate_manager_server_rotation_seconds_bucket{le=\"60\"} 0",
            "kubelet_certificate_manager_server_rotation_seconds_bucket{le=\"3600\"} 1",
            "kubelet_certificate_manager_server_rotation_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }
}
