//! A kubelet's configuration: `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`), its drop-ins and the command
//! line, as Kubernetes 1.36 has them.
//!
//! Pure: texts are read elsewhere. One table ([`fields`]) says of every field its kind, default, bounds and flag, so
//! that a configuration stays a JSON value and needs no type of 130 members. Tests: in these files.

pub mod decode;
pub mod fields;
pub mod flags;
mod validate;

pub use decode::{Configuration, merge, settle};
pub use flags::CommandLine;
pub use longshore_dataplane::config::decode::FieldError;

pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
pub const KIND: &str = "KubeletConfiguration";
