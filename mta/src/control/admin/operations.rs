//! What the operator may ask for, as the API's handlers see it.

use std::future::Future;
use std::time::Duration;

use crate::control::{
    api::{
        ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, AddMember, AddToken, AuditFilter, AuditPage, AuditRow,
        ClimbFilter, ClimbRow, ClimbShown, ClimbVerb, CredentialRow, Enrolled, EventFilter, EventPage, ImportKey, Key, Member,
        NewSecret, NewToken, Overview, PlanChecked, PlanRow, PlanShown, PlanWish, QueueDone, QueueFilter, QueuePage, QueueWish,
        QueuedMessage, Reason, Refusal, RemoveKeys, RepliesFilter, RepliesPage, SetMember, ShapingChecked, ShapingRow,
        ShapingText, ShapingWish, Simulated, SiteShown, SitesFilter, SitesPage, SourceHealthRow, SourceRow, Status, StepFilter,
        StepRow, TokenRow, WarmupPage, WarmupWish, Where, Why,
    },
    wishes::Verb,
};

/// What the operator may ask for. The daemon's own is `operations::Daemon`; tests have others, which need not
/// answer everything.
pub trait Operations: Send + Sync + 'static {
    /// Enrols a member or adds a domain to one.
    fn add_member(&self, member: AddMember) -> impl Future<Output = Result<Enrolled, Refusal>> + Send;
    /// All members.
    fn members(&self) -> impl Future<Output = Result<Vec<Member>, Refusal>> + Send;
    /// The one with this DID or sending domain.
    fn member(&self, member: &str) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Puts it into a tier or a pool.
    fn set_member(&self, member: &str, change: SetMember) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Stops or starts accepting its mail.
    fn suspend(&self, member: &str, suspended: bool) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Forgets it, with its credentials and keys.
    fn remove_member(&self, member: &str) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Takes an own key in.
    fn import_key(&self, key: ImportKey) -> impl Future<Output = Result<Key, Refusal>> + Send;
    /// All keys.
    fn keys(&self) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Makes new keys for a domain.
    fn rotate_keys(&self, domain: &str) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Removes keys.
    fn remove_keys(&self, which: RemoveKeys) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Part of the queue; `filter.limit` is set and in range.
    fn queue(&self, filter: QueueFilter) -> impl Future<Output = Result<QueuePage, Refusal>> + Send;
    /// One message.
    fn queued(&self, id: &str) -> impl Future<Output = Result<QueuedMessage, Refusal>> + Send;
    /// Why a message waits, or what became of it.
    fn why(&self, id: &str) -> impl Future<Output = Result<Why, Refusal>> + Send;
    /// How a domain's mail travels.
    fn whereabouts(&self, domain: &str) -> impl Future<Output = Result<Where, Refusal>> + Send;
    /// Our own sources.
    fn sources(&self) -> impl Future<Output = Result<Vec<SourceRow>, Refusal>> + Send;
    /// What of shaping, pools and providers holds now.
    fn shaping(&self) -> impl Future<Output = Result<Vec<ShapingRow>, Refusal>> + Send;
    /// Holds, releases, cancels or flushes; `by` is who asks.
    fn operate(&self, verb: Verb, wish: QueueWish, by: &str) -> impl Future<Output = Result<QueueDone, Refusal>> + Send;
    /// Events; may wait for some.
    fn events(&self, filter: EventFilter) -> impl Future<Output = Result<EventPage, Refusal>> + Send;
    /// Automatic actions that run.
    fn actions(&self, filter: ActionFilter) -> impl Future<Output = Result<ActionPage, Refusal>> + Send;
    /// One of them, or what became of it.
    fn action(&self, id: u64) -> impl Future<Output = Result<ActionShown, Refusal>> + Send;
    /// Ends one; `by` is who asks.
    fn end_action(&self, id: u64, wish: ActionWish, by: &str) -> impl Future<Output = Result<ActionRow, Refusal>> + Send;
    /// Moves the end of one.
    fn prolong_action(&self, id: u64, wish: ActionWish, by: &str) -> impl Future<Output = Result<ActionRow, Refusal>> + Send;
    /// How sources stand.
    fn source_health(&self) -> impl Future<Output = Result<Vec<SourceHealthRow>, Refusal>> + Send;
    /// Where sources stand that warm up.
    fn warmup(&self) -> impl Future<Output = Result<WarmupPage, Refusal>> + Send;
    /// One of them at one provider.
    fn climb(
        &self,
        source: &str,
        provider: &str,
        filter: ClimbFilter,
    ) -> impl Future<Output = Result<ClimbShown, Refusal>> + Send;
    /// What was decided about warmup.
    fn climb_steps(&self, filter: StepFilter) -> impl Future<Output = Result<Vec<StepRow>, Refusal>> + Send;
    /// Steers (source, provider); `by` is who asks.
    fn steer_climb(
        &self,
        of: (&str, &str),
        verb: ClimbVerb,
        wish: WarmupWish,
        by: &str,
    ) -> impl Future<Output = Result<ClimbRow, Refusal>> + Send;
    /// Writes down that something is about to be changed; an error: then it must not be.
    fn begin_audit(&self, row: AuditRow) -> impl Future<Output = Result<u64, Refusal>> + Send;
    /// Writes down what became of it.
    fn end_audit(&self, end: AuditRow) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// What was changed about something since it had one of these versions, the newest first.
    fn audit_since(&self, about: &str, versions: &[&str]) -> impl Future<Output = Result<Vec<AuditRow>, Refusal>> + Send;
    /// A page of the audit, the newest first.
    fn audit(&self, _filter: AuditFilter) -> impl Future<Output = Result<AuditPage, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Makes an operator's token; `by` is who asks.
    fn add_token(&self, _token: AddToken, _by: &str) -> impl Future<Output = Result<NewToken, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// All of them.
    fn tokens(&self) -> impl Future<Output = Result<Vec<TokenRow>, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Makes the one of this name worthless.
    fn revoke_token(&self, _name: &str) -> impl Future<Output = Result<TokenRow, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// How everything goes, and what needs a person.
    fn overview(&self) -> impl Future<Output = Result<Overview, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// The number of the newest event, as soon as it is beyond `seen`, or after `wait`.
    fn newest_event(&self, _seen: u64, _wait: Duration) -> impl Future<Output = Result<u64, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// All plans of warmup.
    fn plans(&self) -> impl Future<Output = Result<Vec<PlanRow>, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// One of them.
    fn plan(&self, _name: &str) -> impl Future<Output = Result<PlanShown, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Whether a text could be applied as the plan of this name.
    fn try_plan(&self, _name: &str, _wish: PlanWish) -> impl Future<Output = Result<PlanChecked, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// What would come of it.
    fn simulate_plan(&self, _name: &str, _wish: PlanWish) -> impl Future<Output = Result<Simulated, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Makes it so.
    fn set_plan(&self, _name: &str, _wish: PlanWish) -> impl Future<Output = Result<PlanShown, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Puts back what was there before.
    fn unset_plan(&self, _name: &str, _why: Reason) -> impl Future<Output = Result<PlanShown, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// A member's credentials.
    fn credentials(&self, _member: &str) -> impl Future<Output = Result<Vec<CredentialRow>, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Another secret for one.
    fn rotate_credential(&self, _member: &str, _id: u32) -> impl Future<Output = Result<NewSecret, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Makes one worthless.
    fn revoke_credential(&self, _member: &str, _id: u32) -> impl Future<Output = Result<CredentialRow, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// The shaping that operators keep.
    fn shaping_text(&self) -> impl Future<Output = Result<ShapingText, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Whether a text could be kept.
    fn try_shaping(&self, _wish: ShapingWish) -> impl Future<Output = Result<ShapingChecked, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Makes it so.
    fn set_shaping(&self, _wish: ShapingWish) -> impl Future<Output = Result<ShapingText, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// Puts back what was there before.
    fn unset_shaping(&self, _why: Reason) -> impl Future<Output = Result<ShapingText, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// A page of the sites that are known.
    fn sites(&self, _filter: SitesFilter) -> impl Future<Output = Result<SitesPage, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// A site by its name.
    fn site(&self, _site: &str) -> impl Future<Output = Result<SiteShown, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// What hosts said lately.
    fn replies(&self, _filter: RepliesFilter) -> impl Future<Output = Result<RepliesPage, Refusal>> + Send {
        async { Err(absent()) }
    }
    /// The name in the greeting.
    fn hostname(&self) -> String;
    /// How the daemon is.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;
}

/// What a test's operations do not answer.
fn absent() -> Refusal {
    Refusal::Unable("nobody is here to answer this".to_owned())
}
