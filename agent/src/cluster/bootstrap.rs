//! How a node that has no certificate yet begins: whether it has to, and the kubeconfig that it is to have.
//!
//! Must never read or write a file. Tests: at the end of this file.

use super::certificate;
use super::kubeconfig::{Kubeconfig, Place};
use crate::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::path::Path;

/// Whether a client certificate is of use: its chain and its key, in PEM. The error says why not.
pub fn usable(chain: &[u8], key: &[u8], now: Wall) -> Result<(), String> {
    let c = certificate::read(chain).map_err(|e| format!("its client certificate cannot be read: {e}"))?;
    PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("its client key cannot be read: {e}"))?;
    if c.has_ended(now) {
        return Err(format!("its client certificate expired at {}", c.until.rfc3339()));
    }
    Ok(())
}

/// The kubeconfig that a kubelet writes for itself: to the server of the bootstrap kubeconfig, with the certificate and
/// the key in the one file that follows each rotation.
pub fn kubeconfig(bootstrap: &Kubeconfig, current: &Path) -> Value {
    let mut cluster = json!({"server": bootstrap.server.url()});
    if bootstrap.insecure {
        cluster["insecure-skip-tls-verify"] = true.into();
    }
    match &bootstrap.authority {
        Some(Place::Inline(pem)) => cluster["certificate-authority-data"] = STANDARD.encode(pem).into(),
        Some(Place::File(path)) => cluster["certificate-authority"] = path.to_string_lossy().into(),
        None => {}
    }
    if let Some(name) = &bootstrap.server_name {
        cluster["tls-server-name"] = name.as_str().into();
    }
    let current = current.to_string_lossy();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default-context",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
        "users": [{"name": "default-auth", "user": {"client-certificate": current, "client-key": current}}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kubeconfig::{Login, settle};
    use crate::manifest::edit::yaml;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn a_certificate_is_of_use_until_it_ends_and_with_its_key() {
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::default();
        p.not_after = (std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_000_000_000)).into();
        let (chain, key) = (p.self_signed(&key).unwrap().pem(), key.serialize_pem());
        let usable = |chain: &str, key: &str, s| usable(chain.as_bytes(), key.as_bytes(), Wall::from_seconds(s));
        assert_eq!(usable(&chain, &key, 2_000_000_000), Ok(()));
        assert_eq!(usable(&chain, &key, 2_000_000_001).unwrap_err(), "its client certificate expired at 2033-05-18T03:33:20Z");
        assert!(usable("", &key, 0).unwrap_err().contains("client certificate cannot be read: there is no certificate in it"));
        assert!(usable(&chain, "", 0).unwrap_err().contains("client key cannot be read"));
    }

    #[test]
    fn what_is_written_leads_to_the_same_server_with_the_current_certificate() {
        let read = |text: &str| settle(Path::new("/etc/kubernetes/x.conf"), text).unwrap();
        for cluster in [
            "{server: 'https://[fd00::1]:6443/', certificate-authority-data: Q0E=, tls-server-name: api}",
            "{server: 'https://a', certificate-authority: pki/ca.crt}",
            "{server: 'https://a', insecure-skip-tls-verify: true}",
        ] {
            let text = format!(
                "{{current-context: x, contexts: [{{name: x, context: {{cluster: c, user: u}}}}], clusters: [{{name: c, cluster: {cluster}}}],
                users: [{{name: u, user: {{token: abcdef.0123456789abcdef}}}}]}}"
            );
            let bootstrap = read(&text);
            let current = Place::File("/var/lib/kubelet/pki/kubelet-client-current.pem".into());
            let want =
                Kubeconfig { login: Login { certificate: Some((current.clone(), current)), ..Login::default() }, ..bootstrap.clone() };
            let written = kubeconfig(&bootstrap, Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem"));
            assert_eq!(read(&yaml(&written).unwrap()), want);
        }
    }
}
