//! Scripted peers, load, and the measurements made with them.
//!
//! [`atnet`] is a scripted atproto network, [`dns`] a scripted DNS server, [`sink`] a scripted mailbox provider, [`source`] the members that submit;
//! [`ledger`] keeps the account between the last two. They are used by the tests, the demo and this crate's program.
//!
//! [`report`], [`idle`], [`backlog`] and [`churn`] measure; [`kill`] and [`disk`] do harm and look for what is missing;
//! [`broken`] holds egress against hosts that go wrong.

pub mod atnet;
mod background;
pub mod backlog;
pub mod broken;
pub mod churn;
pub mod console;
pub mod cpu;
pub mod crash;
pub mod daemon;
pub mod disk;
pub mod dns;
pub mod economy;
pub mod exim;
pub mod handover;
pub mod idle;
pub mod interop;
pub mod kill;
pub mod labeler;
mod later;
pub mod ledger;
pub mod manager;
mod outside;
pub mod postfix;
pub mod powercut;
pub mod process;
pub mod profile;
pub mod report;
pub mod scrape;
pub mod sink;
pub mod source;
mod store;
pub mod tls;
pub mod tls_cases;
mod young;
