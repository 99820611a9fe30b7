//! The services that every contender gets: two endpoints each, one file each.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use longshore_dataplane::wire;
use serde_json::{Value, json};

pub const SERVICE_PORT: u16 = 80;

/// Services `0..count`, and which endpoints each has now.
pub struct Services {
    folder: PathBuf,
    last_octets: Vec<[u8; 2]>,
}

/// One endpoint takes another's place.
pub struct Change {
    pub service: usize,
    /// The address that nobody answered at before.
    pub came: Ipv4Addr,
    pub endpoints: [Ipv4Addr; 2],
    folder: PathBuf,
}

pub fn vip(index: usize) -> Ipv4Addr {
    let bytes = (index as u32).to_be_bytes();
    Ipv4Addr::new(10, 96 + bytes[1], bytes[2], bytes[3])
}

fn endpoint(index: usize, last: u8) -> Ipv4Addr {
    let bytes = (index as u32).to_be_bytes();
    Ipv4Addr::new(10, 128 + bytes[2], bytes[3], last)
}

fn objects(index: usize, endpoints: [Ipv4Addr; 2]) -> Value {
    let (name, namespace) = (format!("service-{index}"), format!("namespace-{}", index % 100));
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ClusterIP", "clusterIP": vip(index), "clusterIPs": [vip(index)], "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": super::network::PORT}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-abcde"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": super::network::PORT, "protocol": "TCP"}],
            "endpoints": endpoints.map(|ip| json!({"addresses": [ip], "nodeName": "elsewhere", "conditions": {"ready": true}}))}]})
}

/// A service and its slice as the data plane takes them.
pub fn parsed(index: usize, endpoints: [Ipv4Addr; 2]) -> (wire::Service, wire::EndpointSlice) {
    let mut objects = objects(index, endpoints);
    let slice = serde_json::from_value(objects["items"][1].take()).unwrap();
    (serde_json::from_value(objects["items"][0].take()).unwrap(), slice)
}

fn put(folder: &Path, index: usize, endpoints: [Ipv4Addr; 2]) {
    // Hidden until it is whole.
    let hidden = folder.join(format!(".{index}"));
    std::fs::write(&hidden, objects(index, endpoints).to_string()).unwrap();
    std::fs::rename(&hidden, folder.join(format!("service-{index:06}.json"))).unwrap();
}

impl Services {
    pub fn write(folder: &Path, count: usize) -> Services {
        let services = Services { folder: folder.into(), last_octets: vec![[1, 2]; count] };
        (0..count).for_each(|index| put(folder, index, services.endpoints(index)));
        services
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn len(&self) -> usize {
        self.last_octets.len()
    }

    pub fn endpoints(&self, index: usize) -> [Ipv4Addr; 2] {
        self.last_octets[index].map(|last| endpoint(index, last))
    }

    /// Replaces one endpoint of some service; not in the kernel yet, nor in the files.
    pub fn next_change(&mut self, round: usize) -> Change {
        let service = round * 7919 % self.len();
        let [kept, went] = self.last_octets[service];
        let came = if went == 250 { 3 } else { went + 1 };
        self.last_octets[service] = [kept, came];
        let endpoints = self.endpoints(service);
        Change { service, came: endpoints[1], endpoints, folder: self.folder.clone() }
    }
}

impl Change {
    /// Puts the file in the place of the one before.
    pub fn write(&self) {
        put(&self.folder, self.service, self.endpoints);
    }
}
