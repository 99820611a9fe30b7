//! `podresources`: which pods there are, and what of the node's devices and processors they have.

use super::devices::Devices;
use crate::cluster::pace::Limit;
use crate::grpc::frame::{Code, Status};
use crate::grpc::messages::{
    AllocatableResourcesResponse, ContainerDevices, ContainerResources, GetPodResourcesRequest, GetPodResourcesResponse,
    ListPodResourcesResponse, PodResources, device, resources,
};
use crate::node::PodEntry;
use crate::pod::ContainerKind;
use crate::run::clock;
use crate::run::grpc::{Answer, Service, reply, request, unknown};
use crate::run::server::Server;
use futures_util::future::LocalBoxFuture;
use std::cell::RefCell;
use std::rc::Rc;

/// Calls a second, and in a burst: a kubelet's limits.
const PER_SECOND: f64 = 100.0;
const BURST: u32 = 10;

pub struct Resources {
    server: Server,
    devices: Rc<Devices>,
    limit: RefCell<Limit>,
}

impl Resources {
    pub fn new(server: Server, devices: Rc<Devices>) -> Resources {
        Resources { server, devices, limit: RefCell::new(Limit::new(PER_SECOND, BURST, clock::mono())) }
    }

    async fn list(&self) -> Result<ListPodResourcesResponse, Status> {
        let pods = self.server.ask(|n, _| n.pods.values().filter(|e| !e.is_over()).map(of_pod).collect()).await;
        Ok(ListPodResourcesResponse { pod_resources: pods.map_err(|f| Status::new(Code::Unavailable, f.message))? })
    }

    async fn get(&self, which: GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
        let (namespace, name) = (which.pod_namespace.clone(), which.pod_name.clone());
        let found = self.server.ask(move |n, _| n.by_name(&namespace, &name).map(of_pod)).await;
        let found = found.map_err(|f| Status::new(Code::Unavailable, f.message))?;
        let missing = || Status::new(Code::Unknown, format!("pod {} in namespace {} not found", which.pod_name, which.pod_namespace));
        Ok(GetPodResourcesResponse { pod_resources: Some(found.ok_or_else(missing)?) })
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        let one = |(resource_name, list): (String, Vec<crate::grpc::messages::Device>)| {
            list.into_iter().filter(|d| d.health == device::HEALTHY).map(move |d| ContainerDevices {
                resource_name: resource_name.clone(),
                device_ids: vec![d.id],
                topology: d.topology,
            })
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu_ids = (0..i64::try_from(processors).unwrap_or(1)).collect();
        AllocatableResourcesResponse { devices: self.devices.offers().into_iter().flat_map(one).collect(), cpu_ids }
    }
}

/// Containers that run on; those of the beginning have given back what they had.
fn of_pod(e: &PodEntry) -> PodResources {
    let pod = &e.desired.pod;
    let stays = |kind| matches!(kind, ContainerKind::Sidecar | ContainerKind::Main);
    let one = |name: &str| ContainerResources { name: name.to_owned(), ..ContainerResources::default() };
    PodResources {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        containers: pod.containers().filter(|(kind, _)| stays(*kind)).map(|(_, c)| one(&c.name)).collect(),
    }
}

impl Service for Resources {
    fn call(self: Rc<Self>, path: String, message: Vec<u8>) -> LocalBoxFuture<'static, Answer> {
        Box::pin(async move {
            if !self.limit.borrow_mut().try_take(clock::mono()) {
                return Err(Status::new(Code::ResourceExhausted, "rejected by rate limit"));
            }
            match path.as_str() {
                // The messages of the first version are those of the last with fewer fields.
                resources::LIST | resources::OLD_LIST => reply(&self.list().await?),
                resources::GET => reply(&self.get(request(message)?).await?),
                resources::ALLOCATABLE => reply(&self.allocatable()),
                _ => Err(unknown(&path)),
            }
        })
    }
}
