//! Which pods make room for a critical one: as few and as small as will do, best-effort before burstable before
//! guaranteed (specification of the kubelet, 1.5).

use super::fit::{Shortage, request};
use crate::pod::resources::{Amounts, requests};
use crate::pod::{Pod, QosClass, qos_class};

/// Resource and how much of it is still to become free.
type Needs = Vec<(String, i128)>;

struct Candidate<'a> {
    pod: &'a Pod,
    asked: Amounts,
}

impl Candidate<'_> {
    fn of(&self, name: &str) -> i128 {
        request(self.pod, &self.asked, name)
    }

    /// What is left when it has gone.
    fn relieve(&self, needs: &Needs) -> Needs {
        needs.iter().map(|(name, n)| (name.clone(), n - self.of(name))).filter(|(_, n)| *n > 0).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "it ranks")]
    fn distance(&self, needs: &Needs) -> f64 {
        let one = |(name, n): &(String, i128)| {
            let left = (n - self.of(name)).max(0);
            (left as f64 / *n as f64).powi(2)
        };
        needs.iter().map(one).sum()
    }

    fn size(&self) -> (i128, i128) {
        (self.of("memory"), self.of("cpu"))
    }
}

fn is_preemptable(by: &Pod, pod: &Pod) -> bool {
    let higher = matches!((by.spec.priority, pod.spec.priority), (Some(a), Some(b)) if a > b);
    (by.is_critical() && !pod.is_critical()) || higher
}

fn relieved<'a>(needs: &Needs, by: impl IntoIterator<Item = &'a Candidate<'a>>) -> Needs {
    by.into_iter().fold(needs.clone(), |n, c| c.relieve(&n))
}

/// The smallest set that covers the needs, nearest first. None: all of them do not.
fn nearest<'a>(mut from: Vec<Candidate<'a>>, mut needs: Needs) -> Option<Vec<Candidate<'a>>> {
    let mut out = Vec::new();
    while !needs.is_empty() {
        let rank = |c: &Candidate<'_>| (c.distance(&needs), c.size());
        let best = (0..from.len()).min_by(|a, b| {
            let ((da, sa), (db, sb)) = (rank(&from[*a]), rank(&from[*b]));
            da.total_cmp(&db).then(sa.cmp(&sb))
        })?;
        let best = from.swap_remove(best);
        needs = best.relieve(&needs);
        out.push(best);
    }
    Some(out)
}

/// Who has to go so that `pod` fits. Err: what would still be missing if everybody went who can.
pub fn victims<'a>(pod: &Pod, active: &[&'a Pod], short: &[Shortage]) -> Result<Vec<&'a Pod>, String> {
    let needs: Needs = short.iter().map(|s| (s.name.clone(), s.missing())).collect();
    let of = |class: QosClass| -> Vec<Candidate<'a>> {
        let chosen = active.iter().filter(|p| is_preemptable(pod, p) && qos_class(p) == class);
        chosen.map(|p| Candidate { pod: p, asked: requests(p) }).collect()
    };
    let (best_effort, burstable, guaranteed) = (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let left = relieved(&needs, best_effort.iter().chain(&burstable).chain(&guaranteed));
    let told = |left: &Needs| {
        let each: String = left.iter().map(|(name, n)| format!("(res: {name}, q: {n}), ")).collect();
        format!("[{each}]")
    };
    if !left.is_empty() {
        return Err(told(&left));
    }
    // Each class gives only what the cheaper ones cannot.
    let beyond = relieved(&needs, best_effort.iter().chain(&burstable));
    let guaranteed = nearest(guaranteed, beyond.clone()).ok_or_else(|| told(&beyond))?;
    let beyond = relieved(&needs, best_effort.iter().chain(&guaranteed));
    let burstable = nearest(burstable, beyond.clone()).ok_or_else(|| told(&beyond))?;
    let beyond = relieved(&needs, burstable.iter().chain(&guaranteed));
    let best_effort = nearest(best_effort, beyond.clone()).ok_or_else(|| told(&beyond))?;
    Ok(best_effort.into_iter().chain(burstable).chain(guaranteed).map(|c| c.pod).collect())
}
