//! Volumes of a pod. One field per source; exactly one is set (validated).

use super::meta::is_false;
use super::{FieldRef, ResourceFieldRef};
use crate::quantity::Quantity;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    #[serde(rename = "downwardAPI", skip_serializing_if = "Option::is_none")]
    pub downward_api: Option<DownwardApiVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<ProjectedVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageVolume>,
    /// Every other source of core/v1 by its field name; refused with the name where this node lacks it.
    #[serde(flatten)]
    pub other: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `""` (disk), `Memory`, `HugePages` or `HugePages-<size>`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub medium: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPath {
    pub path: String,
    /// `""`, `DirectoryOrCreate`, `Directory`, `FileOrCreate`, `File`, `Socket`, `CharDevice`, `BlockDevice`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A mode of 0644 in the YAML form is 420 in JSON; both give 0o644.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapVolume {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    pub default_mode: u32,
    #[serde(skip_serializing_if = "is_false")]
    pub optional: bool,
}

impl Default for ConfigMapVolume {
    fn default() -> ConfigMapVolume {
        ConfigMapVolume { name: String::new(), items: Vec::new(), default_mode: 0o644, optional: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretVolume {
    pub secret_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    pub default_mode: u32,
    #[serde(skip_serializing_if = "is_false")]
    pub optional: bool,
}

impl Default for SecretVolume {
    fn default() -> SecretVolume {
        SecretVolume { secret_name: String::new(), items: Vec::new(), default_mode: 0o644, optional: false }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    pub key: String,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardApiVolume {
    pub items: Vec<DownwardApiFile>,
    pub default_mode: u32,
}

impl Default for DownwardApiVolume {
    fn default() -> DownwardApiVolume {
        DownwardApiVolume { items: Vec::new(), default_mode: 0o644 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardApiFile {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedVolume {
    pub sources: Vec<ProjectedSource>,
    pub default_mode: u32,
}

impl Default for ProjectedVolume {
    fn default() -> ProjectedVolume {
        ProjectedVolume { sources: Vec::new(), default_mode: 0o644 }
    }
}

/// One source of a projected volume; exactly one field is set (validated).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ProjectedKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ProjectedKeys>,
    #[serde(rename = "downwardAPI", skip_serializing_if = "Option::is_none")]
    pub downward_api: Option<DownwardApiItems>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<TokenFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<serde_json::Value>,
}

/// A token of the pod's service account, in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenFile {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

/// What makes two tokens of one pod different ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenWish {
    /// Empty: the API server's own.
    pub audience: Box<str>,
    pub seconds: i64,
}

impl TokenFile {
    pub fn wish(&self) -> TokenWish {
        TokenWish { audience: self.audience.as_str().into(), seconds: self.expiration_seconds.unwrap_or(3600) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectedKeys {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    #[serde(skip_serializing_if = "is_false")]
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownwardApiItems {
    pub items: Vec<DownwardApiFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageVolume {
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<super::ImagePullPolicy>,
}

impl Volume {
    /// The tokens that this volume shows.
    pub fn tokens(&self) -> impl Iterator<Item = TokenWish> {
        self.projected.iter().flat_map(|p| &p.sources).filter_map(|s| s.service_account_token.as_ref().map(TokenFile::wish))
    }

    /// Names of the ConfigMaps and Secrets that this volume reads, with whether each may be absent.
    pub fn references(&self) -> Vec<(Referent, &str, bool)> {
        let mut out = Vec::new();
        if let Some(v) = &self.config_map {
            out.push((Referent::ConfigMap, v.name.as_str(), v.optional));
        }
        if let Some(v) = &self.secret {
            out.push((Referent::Secret, v.secret_name.as_str(), v.optional));
        }
        for s in self.projected.iter().flat_map(|p| &p.sources) {
            if let Some(k) = &s.config_map {
                out.push((Referent::ConfigMap, k.name.as_str(), k.optional));
            }
            if let Some(k) = &s.secret {
                out.push((Referent::Secret, k.name.as_str(), k.optional));
            }
        }
        out
    }
}

/// The kinds of object that a pod reads its configuration from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Referent {
    ConfigMap,
    Secret,
}

/// Data of a ConfigMap or a Secret, bytes by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigData {
    pub data: std::collections::BTreeMap<String, Box<[u8]>>,
    /// Secrets only: `kubernetes.io/dockerconfigjson` and the like.
    pub kind: String,
    pub immutable: bool,
    /// ConfigMaps only: keys that were given as bytes.
    pub binary: std::collections::BTreeSet<String>,
}
