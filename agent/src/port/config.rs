//! The fields of `KubeletConfiguration` that concern the port, with upstream's names and defaults.
//!
//! Decoding the whole configuration is not done here; what is written here is read back the same.

use crate::time::go_duration;
use longshore_dataplane::config::duration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortConfig {
    pub enable_server: bool,
    pub address: IpAddr,
    pub port: u16,
    /// 0: none.
    pub read_only_port: u16,
    /// Empty: a certificate is made.
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    /// By Go's names; empty: all that are sound.
    pub tls_cipher_suites: Vec<String>,
    /// `VersionTLS12`, `VersionTLS13`; empty: the former.
    pub tls_min_version: String,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub enable_debugging_handlers: bool,
    pub enable_system_log_handler: bool,
    pub enable_system_log_query: bool,
    pub enable_profiling_handler: bool,
    pub enable_debug_flags_handler: bool,
    /// 0: none.
    pub healthz_port: u16,
    pub healthz_bind_address: IpAddr,
    pub streaming_connection_idle_timeout: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: Webhook,
    pub anonymous: Anonymous,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    /// Authorities of clients, in PEM; read again when it changes. Empty: certificates count for nothing.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Anonymous {
    pub enabled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorization {
    pub mode: Mode,
    pub webhook: AuthorizationWebhook,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    #[default]
    Webhook,
    AlwaysAllow,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

/// A duration in Go's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&go_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<GoDuration, D::Error> {
        let text = String::deserialize(d)?;
        duration::parse(&text).map(GoDuration).ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as 2m or 30s")))
    }
}

const fn seconds(n: u64) -> GoDuration {
    GoDuration(Duration::from_secs(n))
}

impl Default for PortConfig {
    fn default() -> PortConfig {
        PortConfig {
            enable_server: true,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            enable_debugging_handlers: true,
            enable_system_log_handler: true,
            enable_system_log_query: false,
            enable_profiling_handler: true,
            enable_debug_flags_handler: true,
            healthz_port: 10248,
            healthz_bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            streaming_connection_idle_timeout: seconds(4 * 3600),
        }
    }
}

impl Default for Webhook {
    fn default() -> Webhook {
        Webhook { enabled: true, cache_ttl: seconds(120) }
    }
}

impl Default for AuthorizationWebhook {
    fn default() -> AuthorizationWebhook {
        AuthorizationWebhook { cache_authorized_ttl: seconds(300), cache_unauthorized_ttl: seconds(30) }
    }
}

impl PortConfig {
    pub fn main(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    pub fn read_only(&self) -> Option<SocketAddr> {
        (self.enable_server && self.read_only_port > 0).then(|| SocketAddr::new(self.address, self.read_only_port))
    }

    pub fn health(&self) -> Option<SocketAddr> {
        (self.healthz_port > 0).then(|| SocketAddr::new(self.healthz_bind_address, self.healthz_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_upstreams() {
        let value = serde_json::to_value(PortConfig::default()).unwrap();
        assert_eq!(
            value["authentication"],
            json!({"x509": {"clientCAFile": ""}, "webhook": {"enabled": true, "cacheTTL": "2m0s"}, "anonymous": {"enabled": false}})
        );
        assert_eq!(
            value["authorization"],
            json!({"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}})
        );
        assert_eq!((&value["port"], &value["readOnlyPort"], &value["healthzPort"]), (&json!(10250), &json!(0), &json!(10248)));
        assert_eq!((&value["address"], &value["healthzBindAddress"]), (&json!("0.0.0.0"), &json!("127.0.0.1")));
        assert_eq!(value["streamingConnectionIdleTimeout"], "4h0m0s");
        assert_eq!(PortConfig::default().read_only(), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = json!({"address": "::", "port": 1, "authentication": {"anonymous": {"enabled": true}}, "authorization": {"mode": "AlwaysAllow"},
            "streamingConnectionIdleTimeout": "90s"});
        let read: PortConfig = serde_json::from_value(text).unwrap();
        assert_eq!((read.authorization.mode, read.authentication.anonymous.enabled), (Mode::AlwaysAllow, true));
        assert_eq!(read.streaming_connection_idle_timeout.0, Duration::from_secs(90));
        let again: PortConfig = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
        assert!(serde_json::from_value::<PortConfig>(json!({"authentication": {"webhook": {"cacheTTL": "soon"}}})).is_err());
    }
}
