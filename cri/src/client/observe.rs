//! Reading pods: one in full, or all with the fewest calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::FuturesUnordered;

use super::Client;
use crate::error::{Error, Verb};
use crate::labels::PodIdentity;
use crate::snapshot::{self, Listing, ObservedContainer, ObservedPod, ObservedSandbox};
use crate::v1;

/// Status calls in flight during a relist. More does not help: runtimes answer them in
/// microseconds, and it is the rest of the node that would wait.
const AT_ONCE: usize = 8;

/// All pods, as far as they could be read.
#[derive(Debug, Default)]
pub struct Relist {
    /// By uid. Unchanged parts are shared with the previous pictures.
    pub pods: Vec<Arc<ObservedPod>>,
    /// Uids of pods that are there but whose statuses could not be read, and why. One stuck
    /// container must not blind us to the rest.
    pub unread: Vec<(Arc<str>, Error)>,
}

/// What a caller made in a pod, by id.
#[derive(Debug, Default)]
pub struct Made<'a> {
    pub sandbox: Option<&'a str>,
    /// Container, and the sandbox it is in.
    pub containers: Vec<(&'a str, &'a str)>,
}

impl Client {
    /// The two lists, grouped by pod, ours alone. With a uid: of that pod alone.
    pub async fn list(&self, pod_uid: Option<&str>) -> Result<Listing, Error> {
        let selector = pod_uid.map(PodIdentity::selector).unwrap_or_default();
        let object = pod_uid.unwrap_or("");
        let sandboxes = self.list_sandboxes(object, selector.clone());
        let containers = self.list_containers(object, selector);
        let (sandboxes, containers) = try_join(sandboxes, containers).await?;
        Ok(Listing::new(sandboxes, containers))
    }

    /// Every pod of ours. Statuses are read only where an id or a state differs from `previous`,
    /// so that an idle node costs two calls. What changes without either, as resources do, shows
    /// only in [`observe`](Self::observe).
    pub async fn list_all(&self, previous: &[Arc<ObservedPod>]) -> Result<Relist, Error> {
        let listing = self.list(None).await?;
        let known: HashMap<&str, &Arc<ObservedPod>> = previous.iter().map(|p| (&*p.uid, p)).collect();
        let mut relist = Relist::default();
        let mut reads = futures_util::stream::iter(listing.pods.values().map(|listed| {
            let known = known.get(&*listed.identity.uid).copied();
            async move {
                if let Some(p) = known.filter(|p| listed.matches(p)) {
                    return Ok(p.clone());
                }
                self.read_patiently(listed, known).await.map_err(|e| (listed.identity.uid.clone(), e))
            }
        }))
        .buffer_unordered(AT_ONCE);
        while let Some(read) = reads.next().await {
            match read {
                Ok(pod) if pod.is_empty() => {}
                Ok(pod) => relist.pods.push(pod),
                Err(failed) => relist.unread.push(failed),
            }
        }
        drop(reads);
        relist.pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        Ok(relist)
    }

    /// A pod whose runtime hangs must not hold up the picture of the node.
    async fn read_patiently(&self, listed: &snapshot::ListedPod, known: Option<&Arc<ObservedPod>>) -> Result<Arc<ObservedPod>, Error> {
        let read = self.read(listed, known.map(|p| &**p));
        match tokio::time::timeout(self.relist_patience, read).await {
            Ok(read) => read.map(Arc::new),
            Err(_) => Err(Error::timeout(Verb::ContainerStatus, &listed.identity.uid)),
        }
    }

    /// One pod: two filtered lists at once, then the statuses at once. Of `previous`, records that
    /// cannot change any more (exited containers, sandboxes in the same state) are taken over;
    /// running containers are read anew. `None` if the runtime holds nothing of the pod.
    pub async fn observe(&self, pod_uid: &str, previous: Option<&ObservedPod>) -> Result<Option<ObservedPod>, Error> {
        let listing = self.list(Some(pod_uid)).await?;
        let Some(listed) = listing.pods.get(pod_uid) else {
            return Ok(None);
        };
        let settled = previous.map(|p| {
            let mut p = p.clone();
            p.containers.retain(|c| c.state.exit().is_some());
            p
        });
        let pod = self.read(listed, settled.as_ref()).await?;
        Ok((!pod.is_empty()).then_some(pod))
    }

    /// One pod after its containers or its sandbox were made and nothing else was done to it: what can have
    /// changed since `previous` is read by its id. Costs no list, for which the runtime looks at every
    /// container of the machine.
    pub async fn observe_made(&self, previous: &ObservedPod, made: &Made<'_>) -> Result<ObservedPod, Error> {
        let homeless = previous.sandboxes.iter().filter(|s| s.ready && !s.host_network && s.ips.is_empty());
        let sandboxes: BTreeSet<&str> = homeless.map(|s| &*s.id).chain(made.sandbox).collect();
        let alive = previous.containers.iter().filter(|c| c.state.exit().is_none());
        let containers: BTreeMap<&str, &str> = alive.map(|c| (&*c.id, &*c.sandbox_id)).chain(made.containers.iter().copied()).collect();
        let fresh_sandboxes: FuturesUnordered<_> = sandboxes.iter().map(|id| self.sandbox_status(id)).collect();
        let fresh: FuturesUnordered<_> = containers.iter().map(|(id, of)| self.container_status(id, of, true)).collect();
        let (fresh_sandboxes, fresh) = try_join(present(fresh_sandboxes), present(fresh)).await?;
        let mut pod = previous.clone();
        pod.sandboxes.retain(|s| !sandboxes.contains(&*s.id));
        pod.sandboxes.extend(fresh_sandboxes.into_iter().map(Arc::new));
        pod.containers.retain(|c| !containers.contains_key(&*c.id));
        pod.containers.extend(fresh.into_iter().map(Arc::new));
        pod.sort();
        Ok(pod)
    }

    async fn read(&self, listed: &snapshot::ListedPod, previous: Option<&ObservedPod>) -> Result<ObservedPod, Error> {
        let changes = listed.changes(previous);
        let sandboxes: FuturesUnordered<_> = changes.sandboxes.iter().map(|id| self.sandbox_status(id)).collect();
        let containers: FuturesUnordered<_> =
            changes.containers.iter().map(|(id, alive)| self.container_status(id, listed.sandbox_of(id), *alive)).collect();
        let (sandboxes, containers) = try_join(present(sandboxes), present(containers)).await?;
        Ok(listed.assemble(previous, sandboxes, containers))
    }

    /// `None` if it is not a kubelet's. Verbose, for the cgroup.
    pub async fn sandbox_status(&self, id: &str) -> Result<Option<ObservedSandbox>, Error> {
        let message = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
        let verb = Verb::PodSandboxStatus;
        let answer = call!(self.runtime, pod_sandbox_status, verb, id, self.usual(), message)?;
        Ok(snapshot::sandbox(answer).map(|(_, s)| s))
    }

    /// `None` if it is not a kubelet's. With `pid`, also asks for the first process, which costs
    /// the runtime some text.
    pub async fn container_status(&self, id: &str, sandbox_id: &str, pid: bool) -> Result<Option<ObservedContainer>, Error> {
        let message = v1::ContainerStatusRequest { container_id: id.into(), verbose: pid };
        let verb = Verb::ContainerStatus;
        let answer = call!(self.runtime, container_status, verb, id, self.usual(), message)?;
        Ok(snapshot::container(answer, sandbox_id).map(|(_, c)| c))
    }

    async fn list_sandboxes(&self, object: &str, label_selector: BTreeMap<String, String>) -> Result<Vec<v1::PodSandbox>, Error> {
        let filter = (!label_selector.is_empty()).then(|| v1::PodSandboxFilter { label_selector, ..Default::default() });
        let (verb, message) = (Verb::ListPodSandbox, v1::ListPodSandboxRequest { filter });
        call!(self.runtime, list_pod_sandbox, verb, object, self.usual(), message).map(|a| a.items)
    }

    async fn list_containers(&self, object: &str, label_selector: BTreeMap<String, String>) -> Result<Vec<v1::Container>, Error> {
        let filter = (!label_selector.is_empty()).then(|| v1::ContainerFilter { label_selector, ..Default::default() });
        let (verb, message) = (Verb::ListContainers, v1::ListContainersRequest { filter });
        call!(self.runtime, list_containers, verb, object, self.usual(), message).map(|a| a.containers)
    }
}

/// Collects what is there. An object that went away between list and status is no error.
async fn present<T, F>(mut reads: FuturesUnordered<F>) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut found = Vec::with_capacity(reads.len());
    while let Some(read) = reads.next().await {
        match read {
            Ok(item) => found.extend(item),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}
