//! The arguments: every verb that works.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};

use mta::control::api::Role;

use crate::audit::AuditArgs;
use crate::credentials::CredentialVerb;
use crate::simulate::SimulateArgs;
use crate::verify::VerifyArgs;

/// Operate the tradewind MTA.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, propagate_version = true)]
pub(crate) struct Args {
    /// The daemon's configuration [default: ./mta.toml, then /etc/tradewind/mta.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Members: who may send
    Member {
        #[command(subcommand)]
        verb: MemberVerb,
    },
    /// A member's passwords, one by one
    Credential {
        #[command(subcommand)]
        verb: CredentialVerb,
    },
    /// DKIM keys
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Operators' tokens: who may use the admin port, and for what
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Copy members, credentials, operators, warmup, events and keys into a new folder, while the daemon runs or not. Mail is not in
    /// it: it would be sent twice. The copy is a data_dir, and as secret as that
    Backup {
        /// Made; must not exist yet.
        folder: PathBuf,
    },
    /// Who changed what, from what to what, why and when; the newest first
    Audit(AuditArgs),
    /// What waits to be delivered
    Queue {
        #[command(subcommand)]
        verb: QueueVerb,
    },
    /// Why a message waits: what holds it, who set that, when it clears; or what became of it
    Why {
        /// The queue id
        id: String,
    },
    /// How a domain's mail travels, and what would happen to a message now
    Where {
        /// The recipient domain
        domain: String,
    },
    /// Our own sources: pools and weights, what the DNS says of their names, block lists that list them, and how each stands
    /// with providers
    Sources,
    /// What became of mail, event by event
    Events {
        /// Those after this number; otherwise the newest
        #[arg(long, value_name = "N")]
        after: Option<u64>,
        /// Go on with what comes
        #[arg(long)]
        follow: bool,
        /// At most so many [default: 100; with --after or --follow no limit]
        #[arg(long)]
        limit: Option<usize>,
        /// Only those of this member: DID or domain
        #[arg(long)]
        member: Option<String>,
        /// Only those of this message
        #[arg(long)]
        id: Option<String>,
    },
    /// What the daemon does about trouble by itself: pauses, narrowed windows, held members
    Actions {
        #[command(subcommand)]
        verb: ActionsVerb,
    },
    /// Warmup: how much young sources may send
    Warmup {
        #[command(subcommand)]
        verb: WarmupVerb,
    },
    /// How the daemon is
    Status,
    /// How a recipient's address stands in the daemon's log, as [log] says: what to look for
    Logged {
        /// The address, or with --message-id a Message-ID
        what: String,
        /// It is a Message-ID
        #[arg(long)]
        message_id: bool,
    },
    /// Who vouches for a message: its signatures, the account that it names, a labeler's labels. Exits 0 when somebody does, 1
    /// when nobody does, 2 when it cannot be said
    Verify(VerifyArgs),
    /// The whole system on loopback: labeler, MTA, providers, one member; sends real mail and says what happened
    Demo {
        /// Send, check, and exit 0 or 1; otherwise it stays up
        #[arg(long)]
        once: bool,
    },
    /// The settings
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// Enrol a DID, or give an enrolled one another domain; shows the password once
    Add {
        /// The member's DID
        #[arg(long)]
        did: String,
        /// A domain that it sends from
        #[arg(long)]
        domain: String,
        /// Classes of its mail: otp, transactional, notice. The first is what mail without a class of its own is
        /// [default: transactional]; mail cannot claim to be more urgent than all of them [default: it may claim any]
        #[arg(long, value_delimiter = ',')]
        class: Vec<String>,
        /// The tier that it is put into [default: as it is; the tier `default` for a new member]
        #[arg(long)]
        tier: Option<String>,
    },
    /// Put a member into another tier, or its mail into another pool
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
    Set {
        /// DID or domain
        member: String,
        /// One of the settings' tiers
        #[arg(long, group = "what")]
        tier: Option<String>,
        /// One of the settings' pools, by which all of its mail then goes; "" for those of its classes
        #[arg(long, group = "what")]
        pool: Option<String>,
    },
    /// All members
    List,
    /// One member
    Show {
        /// DID or domain
        member: String,
    },
    /// Stop accepting a member's mail; what is queued still goes out
    Suspend {
        /// DID or domain
        member: String,
    },
    /// Accept it again
    Resume {
        /// DID or domain
        member: String,
    },
    /// Forget a member, with its credentials and keys
    Remove {
        /// DID or domain
        member: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Sign with an own key
    Import {
        /// The signing domain
        #[arg(long)]
        domain: String,
        /// The selector under which the public key is published
        #[arg(long)]
        selector: String,
        /// PEM file: RSA (2048 bits or more) or Ed25519
        #[arg(long)]
        file: PathBuf,
    },
    /// All keys, without their private parts
    List,
    /// Make new keys beside the old ones
    Rotate {
        /// The signing domain
        #[arg(long)]
        domain: String,
    },
    /// Remove keys
    Remove {
        /// The signing domain
        #[arg(long)]
        domain: String,
        #[command(flatten)]
        which: Which,
    },
}

/// Exactly one way of naming keys.
#[derive(Debug, Arguments)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The key with this selector
    #[arg(long)]
    pub(crate) selector: Option<String>,
    /// The keys of this algorithm
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// All keys of the domain
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Algorithm {
    Rsa,
    Ed25519,
}

impl Algorithm {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Algorithm::Rsa => "rsa",
            Algorithm::Ed25519 => "ed25519",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// Deliveries that are not settled
    List {
        /// Only those to this domain
        #[arg(long, visible_alias = "domain")]
        site: Option<String>,
        /// Only those of this member: DID or domain
        #[arg(long)]
        member: Option<String>,
        /// Only what an operator holds
        #[arg(long)]
        held: bool,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
        /// Go on where a former list ended
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
    },
    /// One message and what became of each recipient
    Show {
        /// The queue id
        id: String,
    },
    /// Do not try it until it is released; what is in flight ends by itself, and what is held too long expires
    Hold {
        #[command(flatten)]
        which: Deliveries,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let it go again, at once
    Release {
        #[command(flatten)]
        which: Deliveries,
    },
    /// Take it out of the queue; what is in flight ends by itself
    Cancel {
        #[command(flatten)]
        which: Deliveries,
        /// Tell the sender
        #[arg(long)]
        notify: bool,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Try what was deferred now, and leave its site alone no longer
    Flush {
        #[command(flatten)]
        which: Deliveries,
    },
}

/// Exactly one way of naming deliveries.
#[derive(Debug, Clone, Arguments)]
#[group(required = true, multiple = false)]
pub(crate) struct Deliveries {
    /// Those of this message: the queue id
    pub(crate) id: Option<String>,
    /// Those of this member: DID or domain
    #[arg(long)]
    pub(crate) member: Option<String>,
    /// Those to this recipient domain
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Those to every domain that is known to lead to this site; a recipient domain stands for itself
    #[arg(long)]
    pub(crate) site: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ActionsVerb {
    /// Those that run
    List {
        /// Only of this kind: leave_site, pause_site, narrow, pause_provider, pause_source, degrade_source, other_source,
        /// hold_member
        #[arg(long)]
        kind: Option<String>,
        /// Those after this number
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// One of them, with its cause and its story; also one that is over
    Show {
        /// Its number
        id: u64,
    },
    /// End it now
    Cancel {
        /// Its number
        id: u64,
        /// For the record
        #[arg(long)]
        why: String,
    },
    /// Make it last longer
    Extend {
        /// Its number
        id: u64,
        /// How much longer, from its end or from now: 30m, 6h
        #[arg(long = "for", value_name = "TIME")]
        lasts: String,
        /// For the record
        #[arg(long)]
        why: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WarmupVerb {
    /// What a plan would do: the scheduler itself, in virtual time, against models of receivers. Needs no daemon
    Simulate(SimulateArgs),
    /// Where sources stand with providers: state, stage, what of today is spent, plan against fact, and what needs a person
    Show {
        /// Only this source
        source: Option<String>,
        /// This one climb, day by day, with its decisions
        provider: Option<String>,
        /// So many days of it [default: 30]
        #[arg(long, requires = "provider")]
        days: Option<usize>,
    },
    /// What was decided, the newest first: figures, rule, reason, and who wanted it
    History {
        /// Only of this source
        source: Option<String>,
        /// Only with this provider
        provider: Option<String>,
        /// At most so many [default: 50]
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Put a climb on a stage
    Set {
        #[command(flatten)]
        name: ClimbName,
        /// The stage, from 1
        #[arg(long)]
        stage: u32,
    },
    /// Fix what may be accepted in a day, until it is taken back
    #[command(group = clap::ArgGroup::new("most").required(true))]
    Pin {
        #[command(flatten)]
        name: ClimbName,
        /// Recipients a day
        #[arg(group = "most")]
        recipients: Option<u64>,
        /// As the plan says again
        #[arg(long, group = "most")]
        off: bool,
    },
    /// Send nothing more; what is under way ends by itself
    Pause {
        #[command(flatten)]
        name: ClimbName,
    },
    /// Go on where it was paused; what was spent today stays spent
    Resume {
        #[command(flatten)]
        name: ClimbName,
    },
    /// Go to the next stage at once; after the last it is warm
    Skip {
        #[command(flatten)]
        name: ClimbName,
    },
    /// Go stages back
    Rewind {
        #[command(flatten)]
        name: ClimbName,
        /// So many [default: 1]
        #[arg(long)]
        stages: Option<u32>,
    },
    /// Count complaints that a provider told of, on its postmaster pages or by a feedback loop: the day's end judges them
    Complaints {
        #[command(flatten)]
        name: ClimbName,
        /// Recipients who complained
        recipients: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make one; it is shown once
    Add {
        /// Whose it is
        #[arg(long)]
        name: String,
        /// What it may: read (look), operate (steer queue, actions, warmup), admin (members, keys, plans, tokens)
        #[arg(long)]
        role: Role,
    },
    /// Whose there are
    List,
    /// Make one worthless, and end its logins
    Revoke {
        /// Whose
        name: String,
    },
}

/// One climb, and why something is done to it.
#[derive(Debug, Clone, Arguments)]
pub(crate) struct ClimbName {
    /// The source
    pub(crate) source: String,
    /// The provider, or `other`
    pub(crate) provider: String,
    /// For the record
    #[arg(long)]
    pub(crate) why: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Say what is wrong with the file, with line and key
    Check {
        /// Show what a reload would change in shaping, pools and sources, against what the daemon has now
        #[arg(long)]
        diff: bool,
    },
    /// Print what is known of receivers, and every setting that a file of shaping may have
    Shaping,
    /// Print the shipped plans of warmup, and every setting that a plan may have
    Warmup,
    /// Print what replies speak of and what is done about it, in the form of a file of [egress] replies
    Replies,
    /// Print the annotated example of every setting
    Describe,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
