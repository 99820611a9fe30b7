//! `longshore kubeconfig`.

use super::Fault;
use super::client::{Client, Socket};
use super::get::emit;
use crate::api::Query;
use clap::Args;
use http_body_util::BodyExt as _;

/// Print a kubeconfig with which kubectl talks to this node.
#[derive(Args)]
#[command(after_help = "The daemon needs --api-bind-address for this. A kubeconfig holds a key: keep it to yourself.

Examples:
  longshore kubeconfig > ~/.kube/config
  longshore kubeconfig --user eve --group ops --days 7    roles are given by --api-role-file of longshore run")]
pub struct Kubeconfig {
    /// Who the certificate is for
    #[arg(long, default_value = "kubernetes-admin", value_name = "NAME")]
    user: String,
    /// Groups of that user; system:masters may do everything, and is what kubernetes-admin gets
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// How long the certificate is good
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650), value_name = "DAYS")]
    days: u64,
    /// Address of the server, where it is reached by another than the one it listens on
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    socket: Socket,
}

impl Kubeconfig {
    pub async fn main(self) -> Result<(), Fault> {
        let mut query = Query::default();
        query.push("user", &self.user);
        query.push("days", self.days);
        self.group.iter().for_each(|g| query.push("group", g));
        if let Some(server) = &self.server {
            query.push("server", server);
        }
        let response = Client::new(&self.socket).open("/longshore/v1/kubeconfig", &query).await?;
        let body = response.into_body().collect().await.map_err(super::ClientError::from)?.to_bytes();
        emit(&String::from_utf8_lossy(&body))
    }
}
