//! The user at the other end of a connection, as the kernel reports it, and the user's rights.

use axum::{
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use nix::unistd::{Uid, User, geteuid};
use tokio::net::UnixStream;

use super::refusal::Refusal;
use crate::control::model::ProblemKind;

/// No user's name is longer.
const LONGEST_NAME: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: Option<u32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|credentials| credentials.uid()) }
    }

    /// Root and the daemon's own user may change things.
    pub(super) fn may_change(self, own_uid: u32) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == own_uid)
    }

    /// The name in events and overrides. Root may name another user, as sudo does.
    pub(super) async fn name(self, on_behalf_of: Option<&str>) -> String {
        let Some(uid) = self.uid else { return "unknown".to_owned() };
        // The look-up may ask a directory server.
        let user = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
        let own = match user {
            Ok(Ok(Some(user))) => user.name,
            Ok(Ok(None) | Err(_)) | Err(_) => format!("uid {uid}"),
        };
        match on_behalf_of.filter(|name| uid == 0 && *name != own && plausible(name)) {
            Some(name) => format!("{name} (as {own})"),
            None => own,
        }
    }
}

fn plausible(name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '\\' | '$');
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(inside)
}

/// Every user who can open the socket may read. Only root and the daemon's user may change anything.
pub(super) async fn only_owners_change(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() || peer.may_change(geteuid().as_raw()) {
        return next.run(request).await;
    }
    let error = "only root and the daemon's user may change anything";
    Refusal::new(ProblemKind::Forbidden, error, "use sudo").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_owner_may_change() {
        let may = |uid, own| Peer { uid }.may_change(own);
        assert!(may(Some(0), 1000) && may(Some(1000), 1000));
        assert!(!may(Some(1001), 1000) && !may(Some(1001), 0) && !may(None, 0));
    }

    #[tokio::test]
    async fn only_root_acts_for_others() {
        let name = async |uid, user| Peer { uid }.name(user).await;
        assert_eq!(name(Some(0), None).await, "root");
        assert_eq!(name(Some(0), Some("alice")).await, "alice (as root)");
        assert_eq!(name(Some(0), Some("root")).await, "root");
        assert_eq!(name(Some(0), Some("a\x1b[2J")).await, "root");
        assert_eq!(name(Some(4_000_000_000), Some("alice")).await, "uid 4000000000");
        assert_eq!(name(None, Some("alice")).await, "unknown");
    }
}
