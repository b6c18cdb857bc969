//! The tradewind MTA: joins the dialogue, the scheduler and the host into a daemon. See `ARCHITECTURE.md`.

pub mod certificate;
pub mod config;
pub mod control;
pub mod daemon;
pub mod drain;
pub mod egress;
pub mod events;
pub mod floor;
pub mod ingress;
pub mod policy;
pub mod queue;
pub mod ring;
pub mod sign;
pub mod sockets;
