//! Keys and certificates of this node's own API: the authority, the server, clients, and what signs tokens.
//!
//! Owns `pki/` in the state directory. Everything is made once and kept; the server's certificate is made anew when
//! its addresses change or it is close to its end.

use super::auth;
use crate::api::signing::Certify;
use crate::api::x509::{self, Algorithm, Leaf};
use crate::run::{clock, state_file};
use crate::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SigningKey as _,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::extensions::ParsedExtension;

/// How long the authority's certificate is good, the server's, and a client's at most.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks differ a little.
const BACKDATE: Duration = Duration::from_secs(300);
/// Certificates of a shorter life are not made shorter by it, as by a cluster's signer.
const SHORT: Duration = Duration::from_secs(8 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    State(#[from] state_file::StateError),
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("{path}: {source}; remove it to have it made anew")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{0} and its key cannot be used to sign; keys of ECDSA P-256 or P-384 and of Ed25519 can")]
    Authority(PathBuf),
    #[error("the key that signs tokens cannot be used; remove {0} to have it made anew")]
    Key(PathBuf),
}

/// The authority of this node, and where it keeps its files.
pub struct Pki {
    dir: PathBuf,
    authority: Issuer<'static, KeyPair>,
    /// Of the authority, in PEM.
    certificate: String,
}

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    use std::io::Write as _;
    let file = |source| PkiError::File { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(file)?;
    f.write_all(text.as_bytes()).and_then(|()| f.sync_all()).map_err(file)?;
    std::fs::rename(&beside, path).map_err(file)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    p.not_before = (now - BACKDATE).into();
    p.not_after = (now + life).into();
    p
}

impl Pki {
    /// Opens the directory; makes the authority if there is none.
    pub fn open(dir: &Path) -> Result<Pki, PkiError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?) {
            let authority = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
            return Ok(Pki { dir: dir.to_owned(), authority, certificate });
        }
        let key = KeyPair::generate()?;
        let mut p = params("longshore-ca", AUTHORITY_LIFE);
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let certificate = p.self_signed(&key)?.pem();
        write(&key_path, &key.serialize_pem())?;
        write(&certificate_path, &certificate)?;
        let authority = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Pki { dir: dir.to_owned(), authority, certificate })
    }

    /// The authority's certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For a person or a program in any number of groups; the key is made here.
    pub fn client(&self, name: &str, groups: &[&str], life: Duration) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let (subject, public) = (x509::name(name, groups), key.subject_public_key_info());
        let certificate = self.issue(&subject, &public, &[], life, |leaf| leaf.client = true)?;
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// For a key that stays with whoever asks, in PEM.
    pub fn certify(&self, what: &Certify) -> Result<String, PkiError> {
        let wanted = &what.wanted;
        self.issue(&wanted.subject, &wanted.key, &wanted.names, what.life, |leaf| {
            leaf.encipherment = what.encipherment;
            leaf.server = what.server;
            leaf.client = !what.server;
        })
    }

    fn issue(
        &self,
        subject: &[u8],
        key: &[u8],
        names: &[u8],
        life: Duration,
        shape: impl FnOnce(&mut Leaf<'_>),
    ) -> Result<String, PkiError> {
        let wrong = || PkiError::Authority(self.dir.join("ca.crt"));
        let authority = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|_| wrong())?;
        let (_, authority) = x509_parser::parse_x509_certificate(&authority).map_err(|_| wrong())?;
        let id = authority.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let signer = self.authority.key();
        let by = match signer.algorithm() {
            a if *a == rcgen::PKCS_ECDSA_P256_SHA256 => Algorithm::EcdsaSha256,
            a if *a == rcgen::PKCS_ECDSA_P384_SHA384 => Algorithm::EcdsaSha384,
            a if *a == rcgen::PKCS_ED25519 => Algorithm::Ed25519,
            _ => return Err(wrong()),
        };
        let mut serial = [0; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| wrong())?;
        let now = clock::now().wall;
        let back = BACKDATE.min(life / 2);
        let life = if life < SHORT { life } else { life - back };
        // Nobody is believed for longer than the authority.
        let until = (now + life).min(Wall::from_seconds(authority.validity().not_after.timestamp()));
        let from = Wall(now.0 - i64::try_from(back.as_nanos()).unwrap_or(0));
        let issuer = authority.subject().as_raw();
        let mut leaf = Leaf {
            serial,
            issuer,
            subject,
            from,
            until,
            key,
            authority: id.unwrap_or_default(),
            names,
            encipherment: false,
            server: false,
            client: false,
        };
        shape(&mut leaf);
        let body = x509::to_be_signed(&leaf, by);
        Ok(pem(&x509::signed(&body, by, &signer.sign(&body)?)))
    }

    /// The server's own.
    pub fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let mut p = params("longshore", SERVER_LIFE);
        for name in names {
            p.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        p.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = p.signed_by(&key, &self.authority)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// TLS for a server that asks clients for certificates and can do without.
    pub fn tls(&self, own: &Identity) -> Result<Arc<ServerConfig>, PkiError> {
        tls(own, self.certificate(), &self.dir)
    }

    pub fn signer(&self, issuer: &str) -> Result<Signer, PkiError> {
        Signer::open(&self.dir.join("sa.key"), issuer)
    }
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..(at + 64).min(text.len())]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A server's TLS with the authorities of its clients, in PEM.
pub fn tls(own: &Identity, clients: &str, from: &Path) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pem = |source| PkiError::Pem { path: from.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(clients.as_bytes()) {
        roots.add(certificate.map_err(pem)?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated().build()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map_err(pem)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Signs and checks the tokens of service accounts (ES256).
pub struct Signer {
    key: EcdsaKeyPair,
    issuer: String,
    id: String,
}

impl Signer {
    fn open(path: &Path, issuer: &str) -> Result<Signer, PkiError> {
        let unusable = || PkiError::Key(path.to_owned());
        if let Some(text) = read(path)? {
            let document = base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| unusable())?;
            return Signer::from_document(&document, issuer).ok_or_else(unusable);
        }
        let document = new_key().ok_or_else(unusable)?;
        write(path, &base64::engine::general_purpose::STANDARD.encode(&document))?;
        Signer::from_document(&document, issuer).ok_or_else(unusable)
    }

    /// With a key that nobody keeps.
    pub fn generate(issuer: &str) -> Option<Signer> {
        Signer::from_document(&new_key()?, issuer)
    }

    fn from_document(document: &[u8], issuer: &str) -> Option<Signer> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new()).ok()?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Some(Signer { key, issuer: issuer.to_owned(), id })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn sign(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let text = format!("{}.{}", auth::part(&head), auth::part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("the kernel gives randomness");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The claims of a token that this key signed. Whether they hold now is for the caller to say.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (text, signature) = token.rsplit_once('.')?;
        let (head, claims) = text.split_once('.')?;
        let decode = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        if decode(head)?["alg"] != "ES256" {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        decode(claims)
    }
}

fn new_key() -> Option<Vec<u8>> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
    Some(document.as_ref().to_vec())
}
