//! Where certificates and their keys are kept: files with both, named by their time, and a link to the one in use.
//!
//! The names and forms are those of client-go's file store, so that a kubelet and this daemon can take over from each
//! other. Every step leaves the old or the new in use, whole. Tests: at the end of this file.

use super::CertificateError;
use crate::api::x509;
use crate::cluster::certificate::{self, Certificate, Purpose};
use crate::time::Wall;
use rcgen::KeyPair;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

pub struct Store {
    directory: PathBuf,
    purpose: Purpose,
}

fn at<T>(path: &Path, r: io::Result<T>) -> Result<T, CertificateError> {
    r.map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

/// Writes beside and renames over it, for its owner's eyes alone.
pub fn write(path: &Path, text: &str) -> Result<(), CertificateError> {
    let beside = path.with_extension("new");
    let written = || {
        if let Err(e) = std::fs::remove_file(&beside)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(e);
        }
        let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()?;
        std::fs::rename(&beside, path)
    };
    at(path, written())
}

pub fn make_directory(path: &Path) -> Result<(), CertificateError> {
    at(path, std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path))
}

/// None: there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        r => at(path, r).map(Some),
    }
}

impl Store {
    /// Makes the directory, and finishes a change that was broken off.
    pub fn open(directory: &Path, purpose: Purpose) -> Result<Store, CertificateError> {
        make_directory(directory)?;
        let store = Store { directory: directory.to_owned(), purpose };
        let (current, updated) = (store.current(), store.named("updated"));
        if !current.exists() && updated.is_symlink() {
            at(&updated, std::fs::rename(&updated, &current))?;
        }
        Ok(store)
    }

    fn named(&self, qualifier: &str) -> PathBuf {
        self.directory.join(format!("{}-{qualifier}.pem", self.purpose.prefix()))
    }

    /// The link to the file in use.
    pub fn current(&self) -> PathBuf {
        self.named("current")
    }

    /// What is in use. None: nothing yet.
    pub fn load(&self) -> Result<Option<Certificate>, CertificateError> {
        let path = self.current();
        let Some(text) = read(&path)? else { return Ok(None) };
        let wrong = |why: String| CertificateError::Wrong { path: path.clone(), why };
        PrivateKeyDer::from_pem_slice(&text).map_err(|e| wrong(e.to_string()))?;
        certificate::read(&text).map(Some).map_err(wrong)
    }

    /// Takes another into use.
    pub fn update(&self, chain: &str, key: &str, now: Wall) -> Result<Certificate, CertificateError> {
        let current = self.current();
        if current.exists() && !current.is_symlink() {
            return Err(CertificateError::Wrong { path: current, why: "it is a file, and should be a link to one".into() });
        }
        // 2026-12-01T12:30:59Z
        let time = now.rfc3339().trim_end_matches('Z').replace(['T', ':'], "-");
        let path = self.named(&time);
        let text = format!("{}\n{}\n", chain.trim_end(), key.trim_end());
        let wrong = |why: String| CertificateError::Wrong { path: path.clone(), why };
        let certificate = certificate::read(text.as_bytes()).map_err(wrong)?;
        write(&path, &text)?;
        let whole = at(&path, std::path::absolute(&path))?;
        let updated = self.named("updated");
        let link = || {
            if updated.is_symlink() {
                std::fs::remove_file(&updated)?;
            }
            std::os::unix::fs::symlink(&whole, &updated)?;
            std::fs::rename(&updated, &current)
        };
        at(&updated, link())?;
        Ok(certificate)
    }

    fn temporary(&self) -> PathBuf {
        self.directory.join(format!("{}.key.tmp", self.purpose.prefix()))
    }

    /// The key of a first request, kept until it is answered: whoever starts anew asks for the same again.
    pub fn temporary_key(&self) -> Result<KeyPair, CertificateError> {
        let path = self.temporary();
        if let Some(text) = read(&path)? {
            match key(&text) {
                Some(key) => return Ok(key),
                None => tracing::warn!(path = %path.display(), "the key cannot be read; making another"),
            }
        }
        let key = KeyPair::generate()?;
        write(&path, &key.serialize_pem())?;
        Ok(key)
    }

    pub fn forget_temporary_key(&self) {
        let path = self.temporary();
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "the key of a request that is done with stays");
        }
    }
}

/// A key as this daemon writes it, or as a kubelet does.
fn key(pem: &[u8]) -> Option<KeyPair> {
    match PrivateKeyDer::from_pem_slice(pem).ok()? {
        PrivateKeyDer::Sec1(key) => KeyPair::try_from(x509::p256_key(key.secret_sec1_der())).ok(),
        key => KeyPair::try_from(key.secret_der()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType};

    fn pair(user: &str) -> (String, String) {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, user);
        let key = KeyPair::generate().unwrap();
        (p.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn each_certificate_has_a_file_and_the_link_leads_to_the_last() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/pki");
        let store = Store::open(&dir, Purpose::Client).unwrap();
        assert!(store.load().unwrap().is_none());
        for (n, user) in ["one", "two", "three"].into_iter().enumerate() {
            let (chain, key) = pair(user);
            let now = Wall::from_seconds(1_800_000_000 + i64::try_from(n).unwrap() / 2);
            assert_eq!(store.update(&chain, &key, now).unwrap().user, user);
            assert_eq!(store.load().unwrap().unwrap().user, user);
        }
        let mut names: Vec<String> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        // Two in one second are one file: it was replaced whole.
        let want = ["kubelet-client-2027-01-15-08-00-00.pem", "kubelet-client-2027-01-15-08-00-01.pem", "kubelet-client-current.pem"];
        assert_eq!(names, want);
        assert_eq!(std::fs::read_link(dir.join(want[2])).unwrap(), dir.join(want[1]));
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(store.current()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_change_that_was_broken_off_is_finished_and_what_is_no_link_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path(), Purpose::Serving).unwrap();
        let (chain, key) = pair("one");
        store.update(&chain, &key, Wall::from_seconds(0)).unwrap();
        std::fs::rename(store.current(), store.named("updated")).unwrap();
        let store = Store::open(base.path(), Purpose::Serving).unwrap();
        assert_eq!(store.load().unwrap().unwrap().user, "one");
        std::fs::remove_file(store.current()).unwrap();
        std::fs::write(store.current(), "torn").unwrap();
        assert!(store.load().unwrap_err().to_string().contains("kubelet-server-current.pem"));
        let told = store.update(&chain, &key, Wall::from_seconds(0)).unwrap_err().to_string();
        assert!(told.ends_with("it is a file, and should be a link to one"), "{told}");
        assert!(store.update("none", &key, Wall::from_seconds(0)).is_err());
    }

    #[test]
    fn the_key_of_a_first_request_is_kept_until_it_is_answered() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path(), Purpose::Client).unwrap();
        let first = store.temporary_key().unwrap().serialize_pem();
        assert_eq!(store.temporary_key().unwrap().serialize_pem(), first);
        std::fs::write(store.temporary(), "torn").unwrap();
        let second = store.temporary_key().unwrap().serialize_pem();
        assert_ne!(second, first);
        store.forget_temporary_key();
        store.forget_temporary_key();
        assert_ne!(store.temporary_key().unwrap().serialize_pem(), second);
        // As a kubelet writes it.
        std::fs::write(store.temporary(), SEC1).unwrap();
        let key = store.temporary_key().unwrap();
        assert!(key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256));
        assert_eq!(std::fs::read_to_string(store.temporary()).unwrap(), SEC1, "it stays");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::write(&file, "").unwrap();
        let told = Store::open(&file.join("pki"), Purpose::Client).err().unwrap().to_string();
        assert!(told.contains("file/pki: Not a directory"), "{told}");
    }

    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEICFXgXMoQgkpMchfJpXfEfdCJmrX9m1KVpw2C9lXElB2oAoGCCqGSM49\n\
        AwEHoUQDQgAEuQNorcZk3zTwqBqw55DbwHm7rtd8cDyIfCjXmeFI6ryZyW7kh3PB\n\
        iGK6gE6VcQOVvZvda0ZTwp5ijIVVnyzJ3g==\n\
        -----END EC PRIVATE KEY-----\n";
}
