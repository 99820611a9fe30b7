//! What the socket of a cluster's node says to writes: they belong elsewhere.

use crate::api::Failure;
use crate::api::resource::Id;
use crate::run::api::persist::Files;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

/// Refuses what would change a node that is told by an API server what to be.
pub struct Elsewhere {
    pub server: String,
}

impl Elsewhere {
    fn refuse(&self) -> LocalBoxFuture<'static, Result<(), Failure>> {
        let message = format!("this node belongs to a cluster; change the object at its API server, {}", self.server);
        Box::pin(std::future::ready(Err(Failure::new(405, "MethodNotAllowed", message))))
    }
}

impl Files for Elsewhere {
    fn put<'a>(&'a self, _: Id, _: &'a Value, _: Option<&'a Value>, _: Option<&'a Value>) -> LocalBoxFuture<'a, Result<(), Failure>> {
        self.refuse()
    }

    fn end<'a>(&'a self, _: Id, _: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>> {
        self.refuse()
    }

    fn remove<'a>(&'a self, _: Id, _: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>> {
        self.refuse()
    }
}
