//! One backend: its state, and operators' orders.

use axum::{
    Json,
    extract::{
        ConnectInfo, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use lb_core::{
    io::{Operation, Verb},
    time::Millis,
};
use serde::Deserialize;

use super::{Api, Request, document, peer::Peer, refusal::Refusal};
use crate::{
    control::model::{BackendView, Document, Order, ProblemKind},
    printable::unprintable,
};

/// In characters. The reason stands in every status.
const LONGEST_REASON: usize = 200;

/// One year.
const LONGEST: u64 = 365 * 24 * 3600 * 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewQuery {
    #[serde(default)]
    connections: bool,
}

pub(super) async fn view(
    State(api): State<Api>,
    Path((service, backend)): Path<(String, String)>,
    query: Result<Query<ViewQuery>, QueryRejection>,
) -> Result<Json<Document<BackendView>>, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::query(&error, "the only parameter is connections=true"))?;
    read(&api, service, backend, query.connections).await.map(document)
}

async fn read(
    api: &Api,
    service: String,
    backend: String,
    connections: bool,
) -> Result<BackendView, Refusal> {
    let names = (service.clone(), backend.clone());
    let view = api.ask(|answer| Request::Backend { service, backend, connections, answer }).await?;
    match view {
        Some(Ok(view)) => Ok(*view),
        Some(Err(problem)) => Err(problem.into()),
        None => Err(Refusal::no_such_backend(&names.0, &names.1, &api.status().await?)),
    }
}

pub(super) async fn change(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((service, backend)): Path<(String, String)>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Document<BackendView>>, Refusal> {
    let Json(order) = order.map_err(|error| {
        Refusal::body(
            &error,
            "send JSON such as {\"verb\":\"drain\",\"for_ms\":600000,\"reason\":\"deploy\"}, as application/json",
        )
    })?;
    check(&order)?;
    let actor = peer.name(order.on_behalf_of.as_deref()).await;
    let Order { verb, for_ms, reason, force, on_behalf_of: _ } = order;
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    let duration = for_ms.map(Millis);
    let operation = Operation {
        service: service.clone(),
        backend: backend.clone(),
        verb,
        duration,
        reason,
        actor,
        force,
    };
    match api.ask(|answer| Request::Operate(operation, answer)).await? {
        Ok(()) => read(&api, service, backend, false).await.map(document).map_err(Refusal::after_the_order),
        Err(refused) => Err(Refusal::of(&refused, &api.status().await?)),
    }
}

fn check(order: &Order) -> Result<(), Refusal> {
    let bad = |error: String, remedy: &str| Err(Refusal::new(ProblemKind::BadRequest, error, remedy));
    let ends = match order.verb {
        Verb::Disable | Verb::Drain | Verb::Eject | Verb::Weight(Some(_)) => true,
        Verb::Enable | Verb::Admit | Verb::Weight(None) => false,
    };
    match order.for_ms {
        Some(_) if !ends => {
            return bad(
                format!("`{}` takes an override back, so it has no duration", order.verb),
                "leave the duration out",
            );
        }
        Some(0) => return bad("the duration is 0".to_owned(), "name a duration above 0"),
        Some(LONGEST..) => {
            return bad(
                "the duration is a year or more".to_owned(),
                "without a duration it holds until an operator takes it back",
            );
        }
        Some(_) | None => {}
    }
    match &order.reason {
        Some(reason) if reason.chars().count() > LONGEST_REASON => {
            bad(format!("the reason has more than {LONGEST_REASON} characters"), "use fewer characters")
        }
        // It stands in events, in the log and in every status, in one line of each.
        Some(reason) if let Some(c) = unprintable(reason) => bad(
            format!("the reason has a control or format character, U+{:04X}", u32::from(c)),
            "write the reason as one line of plain text",
        ),
        Some(_) | None => Ok(()),
    }
}
