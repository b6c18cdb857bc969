//! Targets: the hosts and addresses of a route that an attempt may go to, in the order to try, and what rules others out.
//!
//! Not here: trying them (`deliver.rs`, `race.rs`), what a domain demands (`tls_policy.rs`).

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use scheduler::Demand;

use super::Job;
use super::link::{Target, Tested, Trail};
use super::tls_policy::{self, TlsResult};
use super::trouble::Trouble;
use crate::queue::TlsWish;

/// Addresses tried in one attempt, over all hosts; more would hold a slot for a quarter of an hour.
const ADDRESSES_TRIED_MAX: usize = 6;
/// At the first attempt a host that has addresses of both families is given no longer to answer: enough for a SYN that was lost
/// twice (RFC 6298 §2: after 1 s and 2 s more). Then the delivery goes from a source of the other family, if there is one, and
/// from the second attempt on there is all the time of shaping.
const FAMILY_PATIENCE: Duration = Duration::from_secs(5);

/// Whether the message goes only where REQUIRETLS is offered (RFC 8689).
pub(super) fn requires_tls(job: &Job) -> bool {
    job.stored.message.parameters.tls == TlsWish::Required
}

/// What a policy that is only tested says of a host; nothing, where the sender or DANE has spoken.
fn tested(job: &Job, host: &scheduler::Host, demand: &Demand) -> Tested {
    let counts = job.route.tls.testing && job.stored.message.parameters.tls == TlsWish::Policy;
    match (counts && *demand == Demand::Opportunistic, tls_policy::names(&job.route.tls, &host.name)) {
        (false, _) => Tested::No,
        (true, true) => Tested::Named,
        (true, false) => Tested::Unnamed,
    }
}

/// The trouble with hosts that no mail of this job may go to, if there are such.
pub(super) fn barred(job: &Job, results: &mut Vec<TlsResult>) -> Option<Trouble> {
    let mut trouble = None;
    for host in &job.route.hosts {
        let Demand::Barred(barred) = tls_policy::demand(job, host) else { continue };
        let (name, text) = (host.name.clone(), barred.text.to_string());
        // What bars the host may be the message's demand alone; then it is not for the domain's report either.
        if !matches!(host.demand, Demand::Barred(_)) {
            trouble.get_or_insert_with(|| Trouble::requiretls(barred.failure, format!("{name}: {text}")));
            continue;
        }
        trouble = Some(Trouble::insecure(barred.failure, format!("{name}: {text}")));
        results.push(TlsResult { host: name, address: None, failure: Some((barred.failure, text)) });
    }
    trouble
}

/// Whether the route has addresses that a source of the other family may reach.
pub(super) fn other_family(job: &Job) -> bool {
    let of_other = |address: &IpAddr| address.is_ipv4() != job.source.address.is_ipv4();
    job.route.hosts.iter().flat_map(|host| &host.addresses).any(of_other)
}

/// Hosts and addresses in the order to try, of the source's own family, without the hosts that are ruled out.
pub(super) fn targets(job: &Job, trail: &Rc<Trail>) -> Vec<Target> {
    let mut targets = Vec::new();
    let hasty = job.stored.attempts == 0;
    for host in &job.route.hosts {
        let demand = tls_policy::demand(job, host);
        if matches!(demand, Demand::Barred(_)) {
            continue;
        }
        let has_other = host.addresses.iter().any(|address| address.is_ipv4() != job.source.address.is_ipv4());
        let patience = if hasty && has_other { FAMILY_PATIENCE } else { Duration::MAX };
        let reachable = host.addresses.iter().filter(|address| address.is_ipv4() == job.source.address.is_ipv4());
        targets.extend(reachable.map(|address| Target {
            host: host.name.clone(),
            address: *address,
            demand: demand.clone(),
            require_tls: requires_tls(job),
            limits: job.limits.clone(),
            tested: tested(job, host, &demand),
            patience,
            trail: trail.clone(),
        }));
    }
    targets.truncate(ADDRESSES_TRIED_MAX);
    targets
}
