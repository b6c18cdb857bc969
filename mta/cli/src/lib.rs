//! The operator's command: a client of the daemon's admin socket.
//!
//! What is asked and answered is in `mta::control::api`, which both sides share. Exit status: 0 done, 1 refused or not
//! reachable, 2 wrong arguments or configuration.

mod args;
mod audit;
mod client;
mod credentials;
mod demo;
mod mail;
mod recorded;
mod show;
mod show_actions;
mod show_diff;
mod show_mail;
mod simulate;
mod tokens;
mod verify;
mod warmup;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::Parser;
use mta::{
    config::{self, Config},
    control::api::{
        ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, AddMember, Enrolled, EventFilter, ImportKey, Key, Member,
        RotateKeys, SetMember, SourceRow, Status, Where, Why,
    },
    events::redact::Redaction,
};
use serde_json::json;

use args::{ActionsVerb, Args, ConfigVerb, KeyVerb, MemberVerb, Verb, WarmupVerb};
use client::{Client, escape};
use show::print;

/// Where `mta.toml` is looked for when `--config` does not say.
const CONFIG_PLACES: [&str; 2] = ["mta.toml", "/etc/tradewind/mta.toml"];

/// What the program does.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            complain(&error, json);
            let wrong_config = error.chain().any(|it| it.is::<config::ConfigError>());
            ExitCode::from(if wrong_config { 2 } else { 1 })
        }
    }
}

fn complain(error: &anyhow::Error, json: bool) {
    if json {
        eprintln!("{}", json!({ "error": format!("{error:#}") }));
    } else {
        eprintln!("tradewind: {error:#}");
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let verb = match args.verb {
        Verb::Config { verb } => return config_verb(&verb, args.config.as_deref(), args.json),
        Verb::Warmup { verb: WarmupVerb::Simulate(wish) } => {
            return simulate::run(&wish, args.config.as_deref(), json).map(|()| ExitCode::SUCCESS);
        }
        Verb::Verify(wish) => return Ok(verify(&wish, args.config.as_deref(), json)),
        Verb::Demo { once } => return demo::run(once).map(|()| ExitCode::SUCCESS),
        verb => verb,
    };
    let path = config_path(args.config.as_deref())?;
    let config = Config::load_alone(&path)?;
    if let Verb::Backup { folder } = &verb {
        mta::queue::backup(&config.data_dir, folder)?;
        if json {
            println!("{}", json!({ "folder": folder }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Verb::Logged { what, message_id } = &verb {
        let redaction = Redaction::of_daemon(&config.log, &config.data_dir)?;
        let shown = if *message_id { redaction.shown_id(what) } else { redaction.recipient(what).into_owned() };
        show::say(&if json { format!("{}\n", json!({ "shown": shown })) } else { shown + "\n" })?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(verb, &Client::new(&config, &path), args.json))?;
    Ok(ExitCode::SUCCESS)
}

/// Whatever keeps it from an answer is "cannot be said", and not "nobody vouches".
fn verify(wish: &verify::VerifyArgs, given: Option<&Path>, json: bool) -> ExitCode {
    let config = config_path(given).ok();
    verify::run(wish, config.as_deref(), json).unwrap_or_else(|error| {
        complain(&error, json);
        ExitCode::from(2)
    })
}

fn config_path(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let found = CONFIG_PLACES.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| anyhow!("there is no {}; name the configuration with --config", CONFIG_PLACES.join(" and no ")))
}

async fn ask(verb: Verb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    match verb {
        Verb::Actions { verb } => actions(verb, daemon, json).await,
        Verb::Status => print(&daemon.get::<Status>("/v1/status").await?, json),
        Verb::Member { verb } => member(verb, daemon, json).await,
        Verb::Credential { verb } => credentials::run(verb, daemon, json).await,
        Verb::Key { verb } => key(verb, daemon, json).await,
        Verb::Audit(args) => audit::run(args, daemon, json).await,
        Verb::Token { verb } => tokens::run(verb, daemon, json).await,
        Verb::Queue { verb } => mail::queue(verb, daemon, json).await,
        Verb::Why { id } => print(&daemon.get::<Why>(&format!("/v1/why/{}", escape(&id))).await?, json),
        Verb::Where { domain } => print(&daemon.get::<Where>(&format!("/v1/where/{}", escape(&domain))).await?, json),
        Verb::Sources => print(&daemon.get::<Vec<SourceRow>>("/v1/sources").await?, json),
        Verb::Events { after, follow, limit, member, id } => {
            mail::events(EventFilter { after, limit, member, id, wait: None }, follow, daemon, json).await
        }
        Verb::Warmup { verb } => warmup::run(verb, daemon, json).await,
        Verb::Config { .. } | Verb::Demo { .. } | Verb::Backup { .. } | Verb::Logged { .. } | Verb::Verify(_) => {
            unreachable!("answered without the daemon")
        }
    }
}

async fn member(verb: MemberVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let path = |member: &str| format!("/v1/members/{}", escape(member));
    match verb {
        MemberVerb::Add { did, domain, class, tier } => {
            let added: Enrolled = daemon.post("/v1/members", &AddMember { did, domain, class, tier }).await?;
            print(&added, json)
        }
        MemberVerb::Set { member, tier, pool } => {
            print(&daemon.post::<Member>(&path(&member), &SetMember { tier, pool }).await?, json)
        }
        MemberVerb::List => print(&daemon.get::<Vec<Member>>("/v1/members").await?, json),
        MemberVerb::Show { member } => print(&daemon.get::<Member>(&path(&member)).await?, json),
        MemberVerb::Suspend { member } => {
            print(&daemon.post::<Member>(&format!("{}/suspend", path(&member)), &json!({})).await?, json)
        }
        MemberVerb::Resume { member } => {
            print(&daemon.post::<Member>(&format!("{}/resume", path(&member)), &json!({})).await?, json)
        }
        MemberVerb::Remove { member } => {
            let removed: Member = daemon.delete(&path(&member)).await?;
            show::removed(&removed, json)
        }
    }
}

async fn actions(verb: ActionsVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    match verb {
        ActionsVerb::List { kind, after, limit } => {
            let filter = ActionFilter { kind, after, limit };
            let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
            let words = [
                filter.kind.as_ref().map(|kind| format!("kind={}", escape(kind))),
                number("after", filter.after),
                number("limit", filter.limit.map(|limit| limit as u64)),
            ];
            let query: Vec<String> = words.into_iter().flatten().collect();
            print(&daemon.get::<ActionPage>(&format!("/v1/actions?{}", query.join("&"))).await?, json)
        }
        ActionsVerb::Show { id } => print(&daemon.get::<ActionShown>(&format!("/v1/actions/{id}")).await?, json),
        ActionsVerb::Cancel { id, why } => {
            let wish = ActionWish { why, lasts: None };
            print(&daemon.post::<ActionRow>(&format!("/v1/actions/{id}/cancel"), &wish).await?, json)
        }
        ActionsVerb::Extend { id, lasts, why } => {
            let wish = ActionWish { why, lasts: Some(lasts) };
            print(&daemon.post::<ActionRow>(&format!("/v1/actions/{id}/extend"), &wish).await?, json)
        }
    }
}

async fn key(verb: KeyVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    match verb {
        KeyVerb::Import { domain, selector, file } => {
            let pem = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let key: Key = daemon.post("/v1/keys", &ImportKey { domain, selector, pem }).await?;
            show::keys_to_publish(&[key], json)
        }
        KeyVerb::List => print(&daemon.get::<Vec<Key>>("/v1/keys").await?, json),
        KeyVerb::Rotate { domain } => {
            let keys: Vec<Key> = daemon.post("/v1/keys/rotate", &RotateKeys { domain }).await?;
            show::keys_to_publish(&keys, json)
        }
        KeyVerb::Remove { domain, which } => {
            let which = if let Some(selector) = which.selector {
                format!("selector={}", escape(&selector))
            } else if let Some(algorithm) = which.algorithm {
                format!("algorithm={}", algorithm.as_str())
            } else {
                "all=true".to_owned()
            };
            let keys: Vec<Key> = daemon.delete(&format!("/v1/keys?domain={}&{which}", escape(&domain))).await?;
            print(&keys, json)
        }
    }
}

/// Done without the daemon, so that a configuration can be looked at before one runs.
fn config_verb(verb: &ConfigVerb, path: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    match verb {
        ConfigVerb::Describe if json => println!("{}", serde_json::to_string_pretty(&config::TABLES)?),
        ConfigVerb::Describe => print!("{}", config::describe()),
        ConfigVerb::Shaping if json => println!("{}", serde_json::to_string_pretty(&config::shaping::TABLES)?),
        ConfigVerb::Warmup if json => println!("{}", serde_json::to_string_pretty(&config::warmup::TABLES)?),
        ConfigVerb::Warmup => print!("{}", config::warmup::print_shipped()),
        ConfigVerb::Shaping => print!("{}", config::shaping::print_shipped()),
        ConfigVerb::Replies => {
            let (replies, rules) = (mta::egress::replies::SHIPPED_REPLIES, mta::egress::replies::SHIPPED_RULES);
            show::say(&format!("{replies}\n{rules}"))?;
        }
        ConfigVerb::Check { diff } => {
            let path = config_path(path)?;
            match Config::load(&path) {
                Ok(config) if *diff => return show_diff::run(&config, &path, json),
                Ok(found) if json => {
                    let hints = config::hints::hints(&found);
                    println!("{}", json!({ "ok": true, "file": path, "problems": [], "hints": hints }));
                }
                Ok(found) => {
                    println!("{}: ok", path.display());
                    config::hints::hints(&found).iter().for_each(|hint| println!("  {hint}"));
                }
                Err(error) if json => {
                    println!("{}", json!({ "ok": false, "file": error.file, "problems": error.problems }));
                    return Ok(ExitCode::from(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
