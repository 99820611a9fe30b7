//! Probes and life-cycle hooks.

use super::names;
use crate::manifest::problem::{Faults, Path};
use crate::pod::{ExecAction, Handler, HttpGetAction, Lifecycle, PortRef, Probe, TcpSocketAction};
use longshore_probes::ProbeKind;

const NEGATIVE: &str = "must be greater than or equal to 0";

pub fn probe(p: &Probe, kind: ProbeKind, path: &Path, out: &mut Faults) {
    let mut one = OneOf { seen: false, path, out, what: "may not specify more than 1 handler type" };
    one.take(p.exec.as_ref(), "exec", exec);
    one.take(p.http_get.as_ref(), "httpGet", http);
    one.take(p.tcp_socket.as_ref(), "tcpSocket", tcp);
    one.take(p.grpc.as_ref(), "grpc", |g, path, out| number(i64::from(g.port), &path.child("port"), out));
    if !one.seen {
        out.required(path, "must specify a handler type");
    }
    let numbers = [
        ("initialDelaySeconds", p.initial_delay_seconds),
        ("timeoutSeconds", p.timeout_seconds),
        ("periodSeconds", p.period_seconds),
        ("successThreshold", p.success_threshold),
        ("failureThreshold", p.failure_threshold),
    ];
    for (name, n) in numbers.into_iter().filter(|(_, n)| *n < 0) {
        out.invalid_number(&path.child(name), n, NEGATIVE);
    }
    if kind != ProbeKind::Readiness && p.success_threshold != 1 {
        out.invalid_number(&path.child("successThreshold"), p.success_threshold, "must be 1");
    }
    if let Some(grace) = p.termination_grace_period_seconds {
        let path = path.child("terminationGracePeriodSeconds");
        if kind == ProbeKind::Readiness {
            out.invalid_number(&path, grace, "must not be set for readinessProbes");
        } else if grace <= 0 {
            out.invalid_number(&path, grace, "must be greater than 0");
        }
    }
}

pub fn lifecycle(l: &Lifecycle, os: &str, path: &Path, out: &mut Faults) {
    for (name, h) in [("postStart", &l.post_start), ("preStop", &l.pre_stop)] {
        if let Some(h) = h {
            handler(h, &path.child(name), out);
        }
    }
    if let Some(signal) = &l.stop_signal {
        let path = path.child("stopSignal");
        if os.is_empty() {
            out.forbidden(&path, "may not be set for containers with empty `spec.os.name`");
        } else if !is_signal(signal) {
            out.invalid(&path, signal, "must be the name of a signal, such as SIGTERM, SIGUSR1 or SIGRTMIN+3");
        }
    }
}

fn is_signal(text: &str) -> bool {
    const PLAIN: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL", "PROF", "PWR",
        "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
        "XFSZ", "RTMIN", "RTMAX",
    ];
    let Some(name) = text.strip_prefix("SIG") else { return false };
    let within = |n: &str, most: u8| n.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n));
    PLAIN.contains(&name)
        || name.strip_prefix("RTMIN+").is_some_and(|n| within(n, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|n| within(n, 14))
}

fn handler(h: &Handler, path: &Path, out: &mut Faults) {
    let mut one = OneOf { seen: false, path, out, what: "may not specify more than 1 handler type" };
    one.take(h.exec.as_ref(), "exec", exec);
    one.take(h.http_get.as_ref(), "httpGet", http);
    one.take(h.tcp_socket.as_ref(), "tcpSocket", tcp);
    one.take(h.sleep.as_ref(), "sleep", |s, path, out| {
        if s.seconds < 0 {
            out.invalid_number(&path.child("seconds"), s.seconds, NEGATIVE);
        }
    });
    if !one.seen {
        out.required(path, "must specify a handler type");
    }
}

/// Checks members of which exactly one is to be set.
pub struct OneOf<'a> {
    pub seen: bool,
    pub path: &'a Path,
    pub out: &'a mut Faults,
    /// What to say of a second.
    pub what: &'static str,
}

impl OneOf<'_> {
    pub fn take<T>(&mut self, member: Option<&T>, name: &str, check: impl FnOnce(&T, &Path, &mut Faults)) {
        let Some(m) = member else { return };
        let path = self.path.child(name);
        if self.seen {
            self.out.forbidden(&path, self.what);
        } else {
            check(m, &path, self.out);
        }
        self.seen = true;
    }
}

fn exec(e: &ExecAction, path: &Path, out: &mut Faults) {
    if e.command.is_empty() {
        out.required(&path.child("command"), "");
    }
}

fn http(h: &HttpGetAction, path: &Path, out: &mut Faults) {
    if h.path.is_empty() {
        out.required(&path.child("path"), "");
    }
    port(&h.port, &path.child("port"), out);
    for (i, header) in h.http_headers.iter().enumerate() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if header.name.is_empty() || !header.name.bytes().all(token) {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            out.invalid(&path.child("httpHeaders").index(i).child("name"), &header.name, why);
        }
    }
}

fn tcp(t: &TcpSocketAction, path: &Path, out: &mut Faults) {
    port(&t.port, &path.child("port"), out);
}

fn port(p: &PortRef, path: &Path, out: &mut Faults) {
    match p {
        PortRef::Number(n) => number(i64::from(*n), path, out),
        PortRef::Name(name) => {
            for m in names::port_name(name) {
                out.invalid(path, name, &m);
            }
        }
    }
}

pub fn number(n: i64, path: &Path, out: &mut Faults) {
    if !(1..=65535).contains(&n) {
        out.invalid_number(path, n, "must be between 1 and 65535, inclusive");
    }
}
