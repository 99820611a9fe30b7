//! What the machine says of itself.

use crate::quantity::binary;
use serde_json::{Map, Value, json};
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// `nodeInfo` of the node's status. `runtime` reads `containerd://1.6.20`.
pub fn info(runtime: &str, architecture: &str) -> Map<String, Value> {
    let or = |first: String, second: &str| if first.is_empty() { read(second) } else { first };
    let info = json!({
        "machineID": or(read("/etc/machine-id"), "/var/lib/dbus/machine-id"),
        "systemUUID": or(read("/sys/class/dmi/id/product_uuid"), "/etc/machine-id"),
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": system(&read("/etc/os-release")),
        "containerRuntimeVersion": runtime,
        "kubeletVersion": crate::KUBERNETES_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture,
    });
    info.as_object().cloned().unwrap_or_default()
}

/// `PRETTY_NAME` of the system.
fn system(release: &str) -> String {
    let value = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Bytes of the file system that a directory is on; 0 where that cannot be told.
pub fn disk(directory: &Path) -> u64 {
    nix::sys::statvfs::statvfs(directory).map_or(0, |s| s.blocks() * s.fragment_size())
}

/// Huge pages that the kernel has set aside: size as resources name it (`2Mi`), and bytes in all.
pub fn huge_pages() -> Vec<(String, i128)> {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let size = entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i128>().ok()? * 1024;
        let count: i128 = read(&entry.path().join("nr_hugepages").to_string_lossy()).parse().ok()?;
        Some((binary(size), size * count))
    };
    let mut out: Vec<_> = sizes.filter_map(one).collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_called_by_its_pretty_name() {
        assert_eq!(system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(system(""), "Linux");
    }
}
