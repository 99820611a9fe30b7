//! What upstream's validation refuses of a configuration that is complete and of the right types.

use super::fields::{Check, FIELDS};
use super::{Configuration, FieldError};
use crate::manifest::validate::names;
use crate::quantity::Quantity;
use longshore_dataplane::config::duration;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::time::Duration;

pub fn validate(c: &Configuration, errors: &mut Vec<FieldError>) {
    for field in FIELDS {
        if let Some(message) = c.get(field.path).and_then(|v| wrong(v, &field.check)) {
            errors.push(FieldError::new(field.path, message));
        }
    }
    let mut say = |bad: bool, field: &str, message: &str| {
        if bad {
            errors.push(FieldError::new(field, message));
        }
    };
    durations(c, &mut say);
    pairs(c, &mut say);
    allocatable(c, &mut say);
    lists(c, errors);
}

fn wrong(value: &Value, check: &Check) -> Option<String> {
    let number = value.as_i64();
    match check {
        Check::Any => None,
        Check::AtLeast(least) => number.filter(|n| n < least).map(|n| format!("{n} is less than {least}")),
        Check::Within(least, most) => {
            number.filter(|n| n < least || n > most).map(|n| format!("{n} must be between {least} and {most}, inclusive"))
        }
        Check::PortOrNone => number.filter(|n| !(0..=65535).contains(n)).map(|n| format!("{n} must be between 0 and 65535, inclusive")),
        Check::OneOf(allowed) => {
            value.as_str().filter(|t| !allowed.contains(t)).map(|t| format!("{t:?} must be one of {}", allowed.join(", ")))
        }
    }
}

type Say<'a> = &'a mut dyn FnMut(bool, &str, &str);

fn durations(c: &Configuration, say: Say) {
    for field in ["imageMinimumGCAge", "imageMaximumGCAge"] {
        say(c.text(field).starts_with('-'), field, "must not be negative");
    }
    let most = c.duration("imageMaximumGCAge");
    say(!most.is_zero() && most <= c.duration("imageMinimumGCAge"), "imageMaximumGCAge", "must be greater than imageMinimumGCAge");
    let quota = c.duration("cpuCFSQuotaPeriod");
    let gate = c.truth("featureGates.CustomCPUCFSQuotaPeriod");
    say(!gate && quota.as_millis() != 100, "cpuCFSQuotaPeriod", "requires feature gate CustomCPUCFSQuotaPeriod");
    let in_range = (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&quota);
    say(gate && !in_range, "cpuCFSQuotaPeriod", "must be between 1ms and 1sec, inclusive");
    let monitor = c.duration("containerLogMonitorInterval");
    say(monitor.as_secs() < 3, "containerLogMonitorInterval", "must be at least 3s");
    let restart = c.duration("crashLoopBackOff.maxContainerRestartPeriod").as_millis();
    say(!(1_000..=300_000).contains(&restart), "crashLoopBackOff.maxContainerRestartPeriod", "must be between 1s and 300s");
    for field in ["shutdownGracePeriod", "shutdownGracePeriodCriticalPods"] {
        let d = c.duration(field);
        let short = c.text(field).starts_with('-') || (!d.is_zero() && d.as_secs() < 1);
        say(short, field, "must be either zero or otherwise >= 1 sec");
    }
    let (whole, critical) = (c.duration("shutdownGracePeriod"), c.duration("shutdownGracePeriodCriticalPods"));
    say(critical > whole, "shutdownGracePeriodCriticalPods", "must be <= shutdownGracePeriod");
    let by_priority = c.get("shutdownGracePeriodByPodPriority").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    let both = by_priority && (!whole.is_zero() || !critical.is_zero());
    say(both, "shutdownGracePeriodByPodPriority", "cannot be set beside shutdownGracePeriod");
}

fn pairs(c: &Configuration, say: Say) {
    let low = c.number("imageGCLowThresholdPercent") >= c.number("imageGCHighThresholdPercent");
    say(low, "imageGCLowThresholdPercent", "must be less than imageGCHighThresholdPercent");
    let serial = c.truth("serializeImagePulls") && c.number("maxParallelImagePulls") > 1;
    say(serial, "maxParallelImagePulls", "cannot be larger than 1 unless serializeImagePulls is false");
    let rootless = !c.text("systemCgroups").is_empty() && c.text("cgroupRoot").is_empty();
    say(rootless, "systemCgroups", "was specified and cgroupRoot was not");
    say(c.truth("runOnce"), "runOnce", "is no mode any more and must not be set");
    say(c.truth("enableSystemLogQuery") && !c.truth("enableSystemLogHandler"), "enableSystemLogQuery", "requires enableSystemLogHandler");
    let factor = c.get("memoryThrottlingFactor").and_then(Value::as_f64).unwrap_or(0.9);
    say(!(factor > 0.0 && factor <= 1.0), "memoryThrottlingFactor", "must be greater than 0 and at most 1.0");
    let tiered = c.text("memoryReservationPolicy") == "TieredReservation" && !c.truth("featureGates.MemoryQoS");
    say(tiered, "memoryReservationPolicy", "TieredReservation requires feature gate MemoryQoS");
    let logs = c.text("podLogsDir");
    say(!logs.starts_with('/'), "podLogsDir", "must be an absolute path");
    let clean = logs.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    say(logs.starts_with('/') && logs != "/" && !clean, "podLogsDir", "must be normalized");
    say(!logs.is_ascii(), "podLogsDir", "must contain ASCII characters only");
    let listed = !c.texts("preloadedImagesVerificationAllowlist").is_empty();
    let policy = c.text("imagePullCredentialsVerificationPolicy");
    let idle = listed && policy != "NeverVerifyAllowlistedImages";
    say(idle, "preloadedImagesVerificationAllowlist", "is only for the policy NeverVerifyAllowlistedImages");
    let cert = c.text("tlsCertFile").is_empty() != c.text("tlsPrivateKeyFile").is_empty();
    say(cert, "tlsPrivateKeyFile", "tlsCertFile and tlsPrivateKeyFile go together");
    for field in ["address", "healthzBindAddress"] {
        say(c.text(field).parse::<IpAddr>().is_err(), field, &format!("{:?} is not an IP address", c.text(field)));
    }
}

fn allocatable(c: &Configuration, say: Say) {
    const FIELD: &str = "enforceNodeAllocatable";
    let all = c.texts(FIELD);
    let has = |name: &str| all.iter().any(|v| v == name);
    for who in ["system", "kube"] {
        let (whole, part) = (format!("{who}-reserved"), format!("{who}-reserved-compressible"));
        say(has(&whole) && has(&part), FIELD, &format!("both {whole:?} and {part:?} cannot be specified together"));
        let group = format!("{who}ReservedCgroup");
        let needed = (has(&whole) || has(&part)) && c.text(&group).is_empty();
        say(needed, &group, &format!("must be specified when enforceNodeAllocatable has {whole:?} or {part:?}"));
        let cpus = !c.text("reservedSystemCPUs").is_empty() && !c.text(&group).is_empty();
        say(cpus, "reservedSystemCPUs", &format!("cannot be used with {group}"));
    }
    for (i, v) in all.iter().enumerate() {
        say(all[..i].contains(v), FIELD, &format!("{v:?} stands twice"));
        let known = ["pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"];
        say(!known.contains(&v.as_str()), FIELD, &format!("{v:?} must be one of {}", known.join(", ")));
        let needs = v != "none" && known.contains(&v.as_str()) && !c.truth("cgroupsPerQOS");
        say(needs, "cgroupsPerQOS", &format!("must be true when enforceNodeAllocatable has {v:?}"));
    }
    say(has("none") && all.len() > 1, FIELD, "\"none\" stands alone");
    say(
        !c.text("reservedSystemCPUs").is_empty() && !is_cpu_set(c.text("reservedSystemCPUs")),
        "reservedSystemCPUs",
        "is no list such as 0-3,8",
    );
}

fn is_cpu_set(text: &str) -> bool {
    let one = |t: &str| t.parse::<u32>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        None => one(part).is_some(),
        Some((a, b)) => one(a).zip(one(b)).is_some_and(|(a, b)| a <= b),
    })
}

fn entries<'a>(c: &'a Configuration, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    c.get(field).and_then(Value::as_object).into_iter().flat_map(Map::iter).filter_map(|(k, v)| Some((k, v.as_str()?)))
}

fn lists(c: &Configuration, errors: &mut Vec<FieldError>) {
    let mut wrong = |field: String, message: String| errors.push(FieldError::new(field, message));
    for (i, ip) in c.texts("clusterDNS").iter().enumerate() {
        if ip.parse::<IpAddr>().is_err() {
            wrong(format!("clusterDNS[{i}]"), format!("{ip:?} is not an IP address"));
        }
    }
    for field in ["systemReserved", "kubeReserved"] {
        for (name, amount) in entries(c, field) {
            if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
                wrong(format!("{field}[{name}]"), "must be one of cpu, memory, ephemeral-storage, pid".into());
            } else if Quantity::parse(amount).map_or(true, |q| q.nanos() < 0) {
                wrong(format!("{field}[{name}]"), format!("{amount:?} is not a quantity that is not negative"));
            }
        }
    }
    for field in ["evictionHard", "evictionSoft", "evictionMinimumReclaim"] {
        for (signal, amount) in entries(c, field) {
            if !SIGNALS.contains(&signal.as_str()) {
                wrong(format!("{field}[{signal}]"), format!("must be one of {}", SIGNALS.join(", ")));
            } else if !is_threshold(amount) {
                wrong(format!("{field}[{signal}]"), format!("{amount:?} is neither a quantity nor a percentage"));
            }
        }
    }
    for (signal, grace) in entries(c, "evictionSoftGracePeriod") {
        if duration::parse(grace).is_none() {
            wrong(format!("evictionSoftGracePeriod[{signal}]"), format!("{grace:?} is not a duration"));
        }
    }
    for (signal, _) in entries(c, "evictionSoft") {
        if c.get("evictionSoftGracePeriod").is_none_or(|m| m.get(signal).is_none()) {
            wrong(format!("evictionSoft[{signal}]"), "needs a grace period in evictionSoftGracePeriod".into());
        }
    }
    if Quantity::parse(c.text("containerLogMaxSize")).map_or(true, |q| q.nanos() <= 0) {
        wrong("containerLogMaxSize".into(), format!("{:?} is not a quantity above 0", c.text("containerLogMaxSize")));
    }
    for (i, taint) in c.get("registerWithTaints").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(message) = taint_fault(taint) {
            wrong(format!("registerWithTaints[{i}]"), message);
        }
    }
}

const SIGNALS: [&str; 10] = [
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "allocatableMemory.available",
    "pid.available",
    "allocatableNodeFs.available",
];

fn is_threshold(text: &str) -> bool {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().is_ok_and(|n| (0.0..=100.0).contains(&n)),
        None => Quantity::parse(text).is_ok_and(|q| q.nanos() >= 0),
    }
}

fn taint_fault(taint: &Value) -> Option<String> {
    let text = |name: &str| taint.get(name).and_then(Value::as_str).unwrap_or_default();
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&text("effect")) {
        return Some(format!("effect {:?} must be one of NoSchedule, PreferNoSchedule, NoExecute", text("effect")));
    }
    let message = names::qualified(text("key")).into_iter().chain(names::label_value(text("value"))).next();
    message.map(|m| m.to_string()).or_else(|| taint.get("timeAdded").filter(|t| !t.is_null()).map(|_| "timeAdded must not be set".into()))
}
