//! The port's certificate and the authorities of its clients, both read again when they change.
//!
//! A client may show any certificate: the handshake proves only that it has the key. Who it is is looked at with each
//! request, by the authorities as they are then. So a client with a certificate that is not good here can still show a
//! token, other authorities need no restart, and a certificate that ends in the middle of a connection ends what it
//! may do. Sessions are not resumed, since a resumed one shows the certificate of long ago.
//! Tests: in this file, `agent/tests/port`.

use crate::api::access::User;
use crate::port::PortConfig;
use crate::run::api::auth::by_certificate;
use crate::run::api::pki::Identity;
use crate::run::clock;
use crate::time::{Mono, Now, Wall};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether a file is another.
const LOOK: Duration = Duration::from_secs(1);
/// Of a certificate that we make, and of the authority made for it.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Pem { path: PathBuf, message: String },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("certificate: {0}")]
    Made(#[from] rcgen::Error),
    #[error("certificate: {0}")]
    Pki(#[from] crate::run::api::pki::PkiError),
    #[error("tlsMinVersion: {0:?} is not spoken here; there are VersionTLS12 and VersionTLS13")]
    Version(String),
    #[error("tlsCipherSuites: {name:?} is not spoken here; there are {known}")]
    Suite { name: String, known: String },
}

/// Where the port's certificate comes from.
pub enum Source {
    /// Of PEM files, which may be one; looked at again when they change.
    Files { certificate: PathBuf, key: PathBuf },
    /// Of one file that somebody may first have to approve; before it is there and after it has ended, nobody is served.
    Awaited(PathBuf),
    /// Made, and made again before it ends.
    Made(Box<dyn Fn() -> Result<Identity, TlsError>>),
    /// The same, kept in files that others may replace.
    Kept { directory: PathBuf, host: String, addresses: Vec<IpAddr> },
}

impl Source {
    /// As a kubelet takes it: one that was asked for (`serverTLSBootstrap`), else files, else one made by itself.
    pub fn of_kubelet(config: &PortConfig, bootstrap: bool, directory: &Path, host: &str, addresses: Vec<IpAddr>) -> Source {
        if bootstrap {
            return Source::Awaited(directory.join("kubelet-server-current.pem"));
        }
        if !config.tls_cert_file.is_empty() {
            return Source::Files { certificate: (&config.tls_cert_file).into(), key: (&config.tls_private_key_file).into() };
        }
        Source::Kept { directory: directory.to_owned(), host: host.to_owned(), addresses }
    }

    /// The certificate's and the key's.
    fn files(&self) -> Option<(PathBuf, PathBuf)> {
        match self {
            Source::Files { certificate, key } => Some((certificate.clone(), key.clone())),
            Source::Awaited(path) => Some((path.clone(), path.clone())),
            Source::Kept { directory, .. } => Some(kept(directory)),
            Source::Made(_) => None,
        }
    }

    fn read(&self) -> Result<Identity, TlsError> {
        match (self, self.files()) {
            (Source::Made(make), _) => make(),
            (Source::Kept { directory, host, addresses }, _) => self_signed(directory, host, addresses),
            (_, Some((certificate, key))) => Ok(Identity { certificate: read(&certificate)?, key: read(&key)? }),
            (Source::Files { .. } | Source::Awaited(_), None) => unreachable!("both have files"),
        }
    }

    fn stamp(&self) -> Stamp {
        self.files().map_or_else(Stamp::new, |(certificate, key)| stamp(&[&certificate, &key]))
    }
}

fn kept(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("kubelet.crt"), directory.join("kubelet.key"))
}

type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

fn stamp(paths: &[&Path]) -> Stamp {
    let of = |p: &&Path| std::fs::metadata(p).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    paths.iter().map(of).collect()
}

fn read(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// The certificate of the port, as it is now.
pub struct Serving {
    source: Source,
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    state: RefCell<Served>,
}

#[derive(Default)]
struct Served {
    looked: Mono,
    stamp: Stamp,
    /// Until when it is good, and when one that we made is made anew.
    until: Option<Wall>,
    renew: Option<Wall>,
    config: Option<Arc<ServerConfig>>,
}

impl Serving {
    pub fn open(source: Source, config: &PortConfig) -> Result<Serving, TlsError> {
        let serving = Serving {
            source,
            provider: provider(&config.tls_cipher_suites)?,
            versions: versions(&config.tls_min_version)?,
            state: RefCell::default(),
        };
        let now = clock::now();
        let waits = matches!(&serving.source, Source::Awaited(path) if !path.exists());
        if !waits {
            serving.take(now)?;
        }
        Ok(serving)
    }

    /// None: there is no certificate yet. One that is broken is told, and the one before stays.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        let now = clock::now();
        if self.is_old(now)
            && let Err(error) = self.take(now)
        {
            tracing::warn!(%error, "the port's certificate stays as it was");
        }
        let state = self.state.borrow();
        let ended = matches!(self.source, Source::Awaited(_)) && state.until.is_some_and(|until| now.wall > until);
        state.config.clone().filter(|_| !ended)
    }

    /// Until when the certificate is good.
    pub fn until(&self) -> Option<Wall> {
        self.state.borrow().until
    }

    fn is_old(&self, now: Now) -> bool {
        let mut state = self.state.borrow_mut();
        if now.mono - state.looked < LOOK {
            return false;
        }
        state.looked = now.mono;
        let found = self.source.stamp();
        let other = found != state.stamp;
        state.stamp = found;
        let is_made = matches!(self.source, Source::Made(_) | Source::Kept { .. });
        other || (is_made && state.renew.is_none_or(|at| now.wall >= at))
    }

    fn take(&self, now: Now) -> Result<(), TlsError> {
        // First: what is replaced meanwhile is seen at the next look.
        let stamp = self.source.stamp();
        let identity = self.source.read()?;
        let path = self.source.files().map_or_else(|| "the certificate that was made".into(), |f| f.0);
        let (config, from, until) = self.build(&identity, &path)?;
        // A clock that steps must not make us make one with every connection.
        let renew = (from + until.since(from) * 4 / 5).max(now.wall + Duration::from_secs(60));
        *self.state.borrow_mut() =
            Served { looked: now.mono, stamp, until: Some(until), renew: Some(renew), config: Some(Arc::new(config)) };
        Ok(())
    }

    fn build(&self, own: &Identity, path: &Path) -> Result<(ServerConfig, Wall, Wall), TlsError> {
        let broken = |e: &dyn std::fmt::Display| TlsError::Pem { path: path.to_owned(), message: e.to_string() };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| broken(&e))?;
        let first = chain.first().ok_or_else(|| broken(&"there is no certificate in it"))?;
        let (_, leaf) = x509_parser::parse_x509_certificate(first).map_err(|e| broken(&e))?;
        let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|e| broken(&e))?;
        let any = Arc::new(AnyClient(self.provider.clone()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(self.versions)?
            .with_client_cert_verifier(any)
            .with_single_cert(chain.clone(), key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((config, Wall::from_seconds(from), Wall::from_seconds(until)))
    }
}

static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

fn versions(least: &str) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    match least {
        "" | "VersionTLS12" => Ok(rustls::ALL_VERSIONS),
        "VersionTLS13" => Ok(&NEWEST),
        other => Err(TlsError::Version(other.into())),
    }
}

/// As Go names them. Those of TLS 1.3 are always on, as with Go.
fn provider(wanted: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = ring::default_provider();
    if wanted.is_empty() {
        return Ok(Arc::new(provider));
    }
    let name = |s: &rustls::SupportedCipherSuite| {
        let text = format!("{:?}", s.suite());
        text.strip_prefix("TLS13_").map_or(text.clone(), |t| format!("TLS_{t}"))
    };
    let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
    // Go has two names for these.
    let plain = |n: &String| match n.as_str() {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => format!("{n}_SHA256"),
        _ => n.clone(),
    };
    let wanted: Vec<String> = wanted.iter().map(plain).collect();
    if let Some(n) = wanted.iter().find(|n| !known.contains(n)) {
        return Err(TlsError::Suite { name: n.clone(), known: known.join(", ") });
    }
    provider.cipher_suites.retain(|s| s.version() == &rustls::version::TLS13 || wanted.contains(&name(s)));
    Ok(Arc::new(provider))
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Whose certificates name clients.
pub struct Authorities {
    path: PathBuf,
    state: RefCell<Trusted>,
}

struct Trusted {
    looked: Mono,
    stamp: Stamp,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    pub fn open(path: &Path) -> Result<Authorities, TlsError> {
        let (stamp, verifier) = (stamp(&[path]), verifier(path)?);
        Ok(Authorities { path: path.to_owned(), state: RefCell::new(Trusted { looked: clock::mono(), stamp, verifier }) })
    }

    /// Who the owner of a certificate is, as of now.
    pub fn user(&self, shown: &[CertificateDer<'static>]) -> Result<User, String> {
        let (own, between) = shown.split_first().ok_or("no certificate")?;
        self.current().verify_client_cert(own, between, UnixTime::now()).map_err(|e| e.to_string())?;
        let mut user = by_certificate(own, clock::now().wall).ok_or("no name in it")?;
        let digest: String = Sha256::digest(own).iter().map(|b| format!("{b:02x}")).collect();
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={digest}")]);
        Ok(user)
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        let mut state = self.state.borrow_mut();
        let now = clock::mono();
        if now - state.looked >= LOOK {
            state.looked = now;
            let found = stamp(&[&self.path]);
            if found != state.stamp {
                match verifier(&self.path) {
                    Ok(v) => state.verifier = v,
                    Err(error) => tracing::warn!(%error, "the authorities of clients stay as they were"),
                }
                state.stamp = found;
            }
        }
        state.verifier.clone()
    }
}

fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let broken = |e: &dyn std::fmt::Display| TlsError::Pem { path: path.to_owned(), message: e.to_string() };
    let text = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        roots.add(certificate.map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    }
    let provider = Arc::new(ring::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|e| broken(&e))
}

/// `kubelet.crt` and `kubelet.key` in this directory, as a kubelet makes them for itself: for the host's name, good for a
/// year, by an authority of its own that nobody keeps. Those that are there are used, and those that were made so are
/// made anew when they are old.
pub fn self_signed(directory: &Path, host: &str, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
    let (certificate, key) = kept(directory);
    if let (Ok(c), Ok(k)) = (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key))
        && !is_old(&c)
    {
        return Ok(Identity { certificate: c, key: k });
    }
    let made = make(host, addresses)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(file(directory))?;
    // The key first: a certificate without it is worth nothing.
    write(&key, &made.key, 0o600).map_err(file(&key))?;
    write(&certificate, &made.certificate, 0o644).map_err(file(&certificate))?;
    Ok(made)
}

/// It was made so, and no more than a fifth of its life is left.
fn is_old(pem: &str) -> bool {
    let Some(Ok(der)) = CertificateDer::pem_slice_iter(pem.as_bytes()).next() else { return false };
    let Ok((_, c)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let (from, until) = (c.validity().not_before.timestamp(), c.validity().not_after.timestamp());
    let made = c.issuer().iter_common_name().any(|n| n.as_str().is_ok_and(|n| n.contains("-ca@")));
    made && clock::now().wall.seconds() >= until - (until - from) / 5
}

fn make(host: &str, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
    let now = clock::now().wall.seconds();
    let start = time(now - 3600);
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, format!("{host}-ca@{now}"));
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (p.not_before, p.not_after) = (start.into(), time(now + LIFE.as_secs().cast_signed()).into());
    let authority = p.self_signed(&authority_key)?;
    let issuer = Issuer::from_params(&p, &authority_key);
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, format!("{host}@{now}"));
    p.subject_alt_names.push(SanType::DnsName(host.try_into()?));
    p.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (p.not_before, p.not_after) = (start.into(), time(now + LIFE.as_secs().cast_signed()).into());
    let own = p.signed_by(&key, &issuer)?;
    Ok(Identity { certificate: own.pem() + &authority.pem(), key: key.serialize_pem() })
}

fn time(seconds: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    f.write_all(text.as_bytes()).and_then(|()| f.sync_all())?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PortConfig {
        PortConfig::default()
    }

    #[test]
    fn a_certificate_that_is_made_is_kept_until_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = self_signed(&pki, "node", &["127.0.0.1".parse().unwrap()]).unwrap();
        assert_eq!(std::fs::metadata(pki.join("kubelet.key")).unwrap().mode() & 0o777, 0o600);
        let again = self_signed(&pki, "node", &[]).unwrap();
        assert_eq!((&first.certificate, &first.key), (&again.certificate, &again.key));
        assert!(!is_old(&first.certificate) && is_old(&made_by("node-ca@1")) && !is_old(&made_by("a real authority")));
        std::fs::write(pki.join("kubelet.crt"), made_by("node-ca@1")).unwrap();
        assert_ne!(self_signed(&pki, "node", &[]).unwrap().certificate, first.certificate);
        // What somebody is writing is not written over.
        std::fs::write(pki.join("kubelet.crt"), "torn").unwrap();
        let source = || Source::of_kubelet(&config(), false, &pki, "node", Vec::new());
        assert!(Serving::open(source(), &config()).err().unwrap().to_string().contains("kubelet.crt"));
        assert_eq!(std::fs::read_to_string(pki.join("kubelet.crt")).unwrap(), "torn");
    }

    /// One that has ended.
    fn made_by(authority: &str) -> String {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, authority);
        (p.not_before, p.not_after) = (time(1000).into(), time(2000).into());
        p.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn files_that_others_put_in_the_place_of_those_that_were_made_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let serving = Serving::open(Source::of_kubelet(&config(), false, dir.path(), "node", Vec::new()), &config()).unwrap();
        let until = serving.until();
        let key = KeyPair::generate().unwrap();
        let mut p = CertificateParams::default();
        p.not_after = time(3_000_000_000).into();
        std::fs::write(dir.path().join("kubelet.crt"), p.self_signed(&key).unwrap().pem()).unwrap();
        serving.state.borrow_mut().looked = Mono::default();
        assert!(serving.config().is_some() && serving.until() == until, "its key is not there yet");
        std::fs::write(dir.path().join("kubelet.key"), key.serialize_pem()).unwrap();
        serving.state.borrow_mut().looked = Mono::default();
        assert!(serving.config().is_some() && serving.until() == Some(Wall::from_seconds(3_000_000_000)));
    }

    #[test]
    fn a_certificate_that_was_asked_for_is_waited_for_and_broken_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet-server-current.pem");
        let files = || Source::Files { certificate: path.clone(), key: path.clone() };
        assert!(Serving::open(files(), &config()).err().unwrap().to_string().contains("kubelet-server-current.pem"));
        let awaited = Source::of_kubelet(&config(), true, dir.path(), "node", Vec::new());
        let awaited = Serving::open(awaited, &config()).unwrap();
        assert!(awaited.config().is_none());
        std::fs::write(&path, "no certificate").unwrap();
        assert!(Serving::open(files(), &config()).err().unwrap().to_string().contains("no certificate in it"));
        // One file with both, as a rotated certificate is kept.
        let made = make("node", &[]).unwrap();
        std::fs::write(&path, made.certificate + &made.key).unwrap();
        let serving = Serving::open(files(), &config()).unwrap();
        assert!(serving.config().is_some() && serving.until().is_some());
        awaited.state.borrow_mut().looked = Mono::default();
        assert!(awaited.config().is_some(), "it came");
        awaited.state.borrow_mut().until = Some(Wall::from_seconds(1));
        assert!(awaited.config().is_none(), "it has ended");
    }

    #[test]
    fn versions_and_suites_have_gos_names() {
        assert_eq!(versions("VersionTLS13").unwrap().len(), 1);
        assert!(versions("VersionTLS10").unwrap_err().to_string().contains("VersionTLS12"));
        let one = provider(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".into()]).unwrap();
        assert_eq!(one.cipher_suites.iter().filter(|s| s.version() == &rustls::version::TLS12).count(), 1);
        assert!(provider(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305".into()]).is_ok());
        let told = provider(&["TLS_RSA_WITH_AES_128_CBC_SHA".into()]).unwrap_err().to_string();
        assert!(told.contains("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"), "{told}");
    }
}
