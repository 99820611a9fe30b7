//! Whether this daemon is well: checks behind `/healthz`, and how often each came out how.

use super::{Port, pages, text};
use crate::api::{Failure, Query};
use crate::port::health::{self, Check};
use crate::port::route::Found;
use crate::run::api::Answer;
use hyper::StatusCode;
use longshore_dataplane::metrics::text::Page;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// The event loop answers between two events; none of them takes near so long.
const LOOP_ANSWERS: Duration = Duration::from_secs(15);

/// By check: how it came out last, and how often well and ill.
#[derive(Default)]
pub struct Totals(RefCell<BTreeMap<&'static str, (bool, u64, u64)>>);

impl Port {
    pub(super) async fn healthz(&self, found: &Found, query: &Query) -> Answer {
        // One check is asked for alone; the others may take long.
        let wanted = |name: &str| found.rest.is_empty() || found.rest.first().is_some_and(|r| r == name);
        let mut checks: Vec<Check> = vec![("ping", Ok(())), ("log", log())];
        if wanted("syncloop") {
            checks.push(("syncloop", self.sync_loop().await));
        }
        self.note(&checks);
        let answer = health::answer(&checks, &found.rest, query);
        let (status, body) = answer.ok_or_else(|| Failure::new(404, "NotFound", "404 page not found"))?;
        Ok(text(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body))
    }

    async fn sync_loop(&self) -> Result<(), String> {
        let answered = tokio::time::timeout(LOOP_ANSWERS, self.server.ask(|_, _| ())).await;
        match answered {
            Ok(Ok(())) => Ok(()),
            _ => Err("sync Loop took longer than expected".into()),
        }
    }

    fn note(&self, checks: &[Check]) {
        let mut totals = self.checks.0.borrow_mut();
        for (name, found) in checks {
            if let Err(why) = found {
                tracing::warn!(check = name, why, "a health check failed");
            }
            let (last, well, ill) = totals.entry(name).or_default();
            *last = found.is_ok();
            *(if found.is_ok() { well } else { ill }) += 1;
        }
    }

    /// `/metrics/slis`
    pub(super) fn slis(&self) -> String {
        let mut page = Page::default();
        let totals = self.checks.0.borrow();
        page.metric("kubernetes_healthcheck", "gauge", "This metric records the result of a single healthcheck.");
        for (name, (last, _, _)) in totals.iter() {
            page.sample("kubernetes_healthcheck", &[("name", name), ("type", "healthz")], u8::from(*last));
        }
        page.metric("kubernetes_healthchecks_total", "counter", "This metric records the results of all healthcheck.");
        for (name, (_, well, ill)) in totals.iter() {
            for (status, n) in [("success", well), ("error", ill)].into_iter().filter(|(_, n)| **n > 0) {
                page.sample("kubernetes_healthchecks_total", &[("name", name), ("status", status), ("type", "healthz")], n);
            }
        }
        page.into_string()
    }

    pub(super) fn probe_metrics(&self) -> String {
        pages::probes(&self.probes)
    }
}

/// Whether what we log still arrives: the reader at the other end of standard error may have gone.
fn log() -> Result<(), String> {
    use rustix::event::{PollFd, PollFlags, poll};
    let stderr = std::io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&none)) {
        Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => Err("nobody reads the log".into()),
        Ok(_) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}
