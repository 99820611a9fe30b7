//! Questions about somebody that the node cannot answer itself: whose token this is, what he may do.

use crate::api::access::{Attributes, User};
use crate::run::api::Api;
use futures_util::future::LocalBoxFuture;
use std::rc::Rc;

/// The question could not be answered; this says nothing of who was asked about.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReviewError(pub String);

/// What a `TokenReview` comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenAnswer {
    /// None: the token is nobody's.
    pub user: Option<User>,
    pub audiences: Vec<String>,
}

/// What a `SubjectAccessReview` comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessAnswer {
    pub allowed: bool,
    /// Somebody has said no; without it nobody has said yes.
    pub denied: bool,
    pub reason: String,
}

/// Who answers: the API server of a cluster, or the lone node's own.
pub trait Reviews {
    /// `audiences` empty: those of the API server itself.
    fn token(&self, token: String, audiences: Vec<String>) -> LocalBoxFuture<'static, Result<TokenAnswer, ReviewError>>;
    fn access(&self, user: User, attributes: Attributes) -> LocalBoxFuture<'static, Result<AccessAnswer, ReviewError>>;
}

/// The API in this process.
pub struct Own(pub Rc<Api>);

impl Reviews for Own {
    fn token(&self, token: String, audiences: Vec<String>) -> LocalBoxFuture<'static, Result<TokenAnswer, ReviewError>> {
        let found = self.0.token_review(&token, &audiences);
        let answer = found.map_or_else(TokenAnswer::default, |(user, audiences)| TokenAnswer { user: Some(user), audiences });
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn access(&self, user: User, attributes: Attributes) -> LocalBoxFuture<'static, Result<AccessAnswer, ReviewError>> {
        let role = self.0.access_review(&user, &attributes);
        let reason = role.map(|r| format!("role {r}")).unwrap_or_default();
        Box::pin(std::future::ready(Ok(AccessAnswer { allowed: role.is_some(), denied: false, reason })))
    }
}
