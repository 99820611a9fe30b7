//! The messages and services of `proto/`, generated. Owns no behaviour beyond a `Debug` that hides
//! credentials.
#![allow(clippy::all, clippy::unwrap_used, missing_docs)]

tonic::include_proto!("runtime.v1");

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).field("server_address", &self.server_address).finish_non_exhaustive()
    }
}
