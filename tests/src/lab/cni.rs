//! The pods' network: a CNI configuration list of bridge and portmap, in a directory of the lab.

use super::Home;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Where distributions and the CNI project put the plugins.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// Where libcni keeps the result of every attachment; not configurable through containerd.
const RESULTS: &str = "/var/lib/cni/results";

/// How pods are connected.
pub struct PodNetwork {
    /// The node's share of the cluster's addresses; empty for a single family.
    pub v4: Option<String>,
    pub v6: Option<String>,
    pub bridge: String,
    /// Whether what pods send beyond their network bears the node's address. Outside hosts of a lab
    /// have routes back, so there it would only hide who asked.
    pub masquerade: bool,
}

impl Default for PodNetwork {
    fn default() -> PodNetwork {
        PodNetwork {
            v4: Some("10.244.0.0/24".to_owned()),
            v6: Some("fd00:10:244::/64".to_owned()),
            bridge: "cni0".to_owned(),
            masquerade: false,
        }
    }
}

impl PodNetwork {
    /// IPv4 alone, as on most nodes.
    pub fn v4_only() -> PodNetwork {
        PodNetwork { v6: None, ..PodNetwork::default() }
    }

    /// Writes the configuration list and returns the directory it is in.
    pub fn write(&self, home: &Home) -> Result<PathBuf> {
        let directory = home.directory("cni/net.d")?;
        let path = directory.join("10-longshore-lab.conflist");
        let list = self.list(&name(home.id()), &home.directory("cni/addresses")?);
        fs::write(&path, format!("{list:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(directory)
    }

    fn list(&self, name: &str, addresses: &Path) -> Value {
        let families = [(&self.v4, "0.0.0.0/0"), (&self.v6, "::/0")];
        let families = families.iter().filter_map(|(cidr, all)| Some((cidr.as_ref()?, all)));
        let (ranges, routes): (Vec<_>, Vec<_>) = families.map(|(cidr, all)| (json!([{ "subnet": cidr }]), json!({ "dst": all }))).unzip();
        json!({
            "cniVersion": "1.0.0",
            "name": name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": true,
                    "ipMasq": self.masquerade,
                    // A pod must be able to reach itself through its service.
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": addresses,
                        "ranges": ranges,
                        "routes": routes,
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }
}

/// The directory with the plugins.
pub fn plugins() -> Result<PathBuf> {
    let found = PLUGINS.iter().map(Path::new).find(|directory| directory.join("bridge").exists());
    found.map(Path::to_owned).context("no CNI plugins in /opt/cni/bin or /usr/lib/cni: install the package containernetworking-plugins")
}

fn name(id: &str) -> String {
    format!("longshore-lab-{id}")
}

/// Removes the cached results of a lab's attachments, which outlive killed pods; and the places where
/// libcni keeps them, when they are empty.
pub fn forget_results(id: &str) {
    let prefix = format!("{}-", name(id));
    for entry in fs::read_dir(RESULTS).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path()).ok();
        }
    }
    for directory in Path::new(RESULTS).ancestors().take(2) {
        fs::remove_dir(directory).ok();
    }
}
