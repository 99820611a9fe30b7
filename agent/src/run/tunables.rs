//! Kernel settings that nodes rely on (specification of the kubelet, 7.6), set at the start.

use std::path::Path;

/// Name below /proc/sys and value, in the order in which they are set.
const TUNABLES: [(&str, &str); 6] = [
    // Requests, not the sum of promises, say what fits: allocations must not fail before memory is used.
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    // A node that died comes back by itself, and one that is half dead dies.
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    // Each container has a session keyring of its own.
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Sets what differs and tells of it; what cannot be set is told and done without.
pub fn set(proc_sys: &Path) {
    for (name, want) in TUNABLES {
        let path = proc_sys.join(name);
        let have = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        if have == want {
            continue;
        }
        match std::fs::write(&path, want) {
            Ok(()) => tracing::info!(setting = %name.replace('/', "."), from = %have, to = want, "kernel setting changed"),
            Err(error) => tracing::warn!(setting = %path.display(), %have, want, %error, "a kernel setting could not be changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_differs_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [("vm/overcommit_memory", "0\n"), ("vm/panic_on_oom", "0\n")] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), value).unwrap();
        }
        // The others are missing, which is no reason to stop.
        set(dir.path());
        assert_eq!(fs::read_to_string(dir.path().join("vm/overcommit_memory")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("vm/panic_on_oom")).unwrap(), "0\n");
    }
}
