//! Whom the client believes, and the certificate it shows: read anew for each connection, because files are replaced.

use super::ClientError;
use crate::cluster::kubeconfig::{Kubeconfig, Place};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// Where a Linux system keeps what it trusts.
const SYSTEM: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Certificate chain and key, in PEM.
pub type Own = (Vec<u8>, Vec<u8>);

pub fn bytes(place: &Place, what: &'static str) -> Result<Vec<u8>, ClientError> {
    match place {
        Place::Inline(bytes) => Ok(bytes.clone()),
        Place::File(path) => std::fs::read(path).map_err(|source| ClientError::File { what, path: path.clone(), source }),
    }
}

fn wrong(what: &'static str, why: impl std::fmt::Display) -> ClientError {
    ClientError::Material { what, why: why.to_string() }
}

pub fn config(k: &Kubeconfig, own: Option<Own>) -> Result<Arc<ClientConfig>, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| wrong("TLS", e))?;
    let builder: ConfigBuilder<ClientConfig, WantsClientCert> = if k.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        builder.with_root_certificates(roots(k)?)
    };
    let mut config = match own {
        Some((chain, key)) => {
            let chain: Vec<CertificateDer<'static>> =
                CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|e| wrong("client certificate", e))?;
            if chain.is_empty() {
                return Err(wrong("client certificate", "no certificate in it"));
            }
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| wrong("client key", e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong("client certificate", e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is taken up again has the certificate of then, not the new one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(k: &Kubeconfig) -> Result<RootCertStore, ClientError> {
    let pem = match &k.authority {
        Some(place) => bytes(place, "certificate authority")?,
        None => {
            let system = SYSTEM.iter().find(|p| Path::new(p).exists());
            let path = system.ok_or_else(|| wrong("certificate authority", "the kubeconfig names none and the system has none"))?;
            bytes(&Place::File(path.into()), "certificate authority")?
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| wrong("certificate authority", e))?;
        match roots.add(certificate) {
            Ok(()) => {}
            // A system's bundle may have one that nobody can use.
            Err(_) if k.authority.is_none() => {}
            Err(e) => return Err(wrong("certificate authority", e)),
        }
    }
    if roots.is_empty() { Err(wrong("certificate authority", "no certificate in it")) } else { Ok(roots) }
}

/// `insecure-skip-tls-verify`: signatures are checked, and nothing else.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
