//! Real stacks at both ends, with the real daemon between: what two hosts can do to each other through a VIP.

#[path = "stacks/changes.rs"]
mod changes;
#[path = "stacks/conversations.rs"]
mod conversations;
#[path = "stacks/resting.rs"]
mod resting;
#[path = "stacks/stage.rs"]
mod stage;
#[path = "stacks/transfers.rs"]
mod transfers;
