//! Responses that are not 200.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lb_core::engine::Refused;

use super::LOOP_TIMEOUT;
use crate::control::{
    events::Ahead,
    model::{Document, Problem, ProblemKind, Status},
};

#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl Refusal {
    pub(super) fn new(kind: ProblemKind, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Problem { kind, error: error.into(), remedy: remedy.into() })
    }

    pub(super) fn query(rejection: &QueryRejection, remedy: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadRequest, rejection.body_text(), remedy)
    }

    pub(super) fn body(rejection: &JsonRejection, remedy: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadRequest, rejection.body_text(), remedy)
    }

    pub(super) fn no_such_service(asked: &str, status: &Status) -> Self {
        let names = status.snapshot.services.iter().map(|service| service.name.as_str());
        let remedy =
            suggestion(asked, &names.collect::<Vec<_>>()).unwrap_or_else(|names| match names.as_str() {
                "" => "no service is configured".to_owned(),
                names => format!("the services are {names}"),
            });
        Self::new(ProblemKind::UnknownService, format!("no service is named `{asked}`"), remedy)
    }

    /// One of the two names is wrong. If both are, the service's name is reported.
    pub(super) fn no_such_backend(service: &str, asked: &str, status: &Status) -> Self {
        let Some(of) = status.snapshot.services.iter().find(|known| known.name == service) else {
            return Self::no_such_service(service, status);
        };
        let names: Vec<_> = of.backends.iter().map(|backend| backend.name.as_str()).collect();
        let remedy = suggestion(asked, &names).unwrap_or_else(|names| match names.as_str() {
            "" => format!("service `{service}` has no backends"),
            names => format!("its backends are {names}"),
        });
        let error = format!("service `{service}` has no backend `{asked}`");
        Self::new(ProblemKind::UnknownBackend, error, remedy)
    }

    /// An order that the engine refused. `status` has the names that exist.
    pub(super) fn of(refused: &Refused, status: &Status) -> Self {
        match refused {
            Refused::NoService { service } => Self::no_such_service(service, status),
            Refused::NoBackend { service, backend } => Self::no_such_backend(service, backend, status),
            Refused::Floor { left, backends, .. } => {
                let rest = match left {
                    0 => "no backend would serve, and new connections would get what `no_backend` says"
                        .to_owned(),
                    left => format!("{left} of {backends} would have to serve all clients"),
                };
                let remedy = format!("bring another backend back first, or use `--force`: then {rest}");
                Self::new(ProblemKind::Floor, refused.to_string(), remedy)
            }
        }
    }

    /// The order was carried out, but the daemon cannot read the state afterwards.
    pub(super) fn after_the_order(self) -> Self {
        let Self(Problem { kind, error, remedy }) = self;
        Self(Problem { kind, error, remedy: format!("the order was carried out; {remedy}") })
    }

    pub(super) fn starting() -> Self {
        Self::new(
            ProblemKind::Unavailable,
            "the daemon is starting: the kernel verifies the program",
            "ask again in some seconds; what an earlier run attached forwards meanwhile",
        )
    }

    pub(super) fn stopping() -> Self {
        Self::new(ProblemKind::Unavailable, "the daemon is stopping", "ask again once it has started")
    }

    pub(super) fn busy() -> Self {
        Self::new(
            ProblemKind::Unavailable,
            format!("the daemon did not answer within {} s", LOOP_TIMEOUT.as_secs()),
            "look at its log; forwarding does not depend on it",
        )
    }
}

/// A name that is similar. `Err`: no name is, and this is the list of all.
fn suggestion(asked: &str, names: &[&str]) -> Result<String, String> {
    let near = names.iter().map(|name| (strsim::osa_distance(name, asked), name)).min();
    match near {
        Some((0..=2, name)) => Ok(format!("did you mean `{name}`?")),
        Some(_) | None => Err(names.join(", ")),
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Ahead> for Refusal {
    fn from(ahead: Ahead) -> Self {
        Self::new(
            ProblemKind::BadRequest,
            ahead.to_string(),
            "the daemon has been restarted since and counts from 1 again: ask without `since`",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(self.0.kind), Json(Document::new(self.0))).into_response()
    }
}

const fn status(kind: ProblemKind) -> StatusCode {
    match kind {
        ProblemKind::UnknownService | ProblemKind::UnknownBackend | ProblemKind::NoSuchPath => {
            StatusCode::NOT_FOUND
        }
        ProblemKind::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
        ProblemKind::Floor | ProblemKind::Hazard => StatusCode::CONFLICT,
        ProblemKind::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemKind::Forbidden => StatusCode::FORBIDDEN,
        ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
        ProblemKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
