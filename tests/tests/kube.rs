//! `shunt-kube` with a small API server, and with the real daemon behind it.

#[path = "kube/follow.rs"]
mod follow;
#[path = "kube/kubectl.rs"]
mod kubectl;
#[path = "kube/once.rs"]
mod once;
#[path = "drain/pool.rs"]
mod pool;
#[path = "kube/rolling.rs"]
mod rolling;
#[path = "kube/stage.rs"]
mod stage;
#[path = "kube/trouble.rs"]
mod trouble;
