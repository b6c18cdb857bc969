//! `console`: the operator's console in a real browser.
//!
//! A daemon with a long queue, a young source, a site in trouble and three operators is worked with by Chromium, driven by Playwright:
//! every page wide and on a phone, held against axe's rules; a plan edited, simulated, applied and undone; two operators at once; an
//! automatic action cancelled, a member suspended and resumed; the overview followed live. The pictures of the guide are made by
//! this run.
//!
//! `interop/install-console` installs what is missing, by apt and npm.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::backlog::{self, Filling};
use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup};
use crate::interop::install::Tools;
use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::sink::{Act, Provider, Rule, Script, Stage};
use crate::source::{Client, Target};
use crate::store::{Bodies, Sizes};
use crate::tls::Certificate;

/// Where mail is taken, and where nobody listens.
const BIG: &str = "big.test";
const DEAD: &str = "dead.test";
/// Puts off what is sent there: something to see in a message's last dialogue.
const ODD: &str = "odd.test";
/// A young source, so that there is something to look at.
const YOUNG: &str = "[[climb]]\nsource = \"ip-a\"\nprovider = \"other\"\nplan = \"gentle\"\n[events]\nkeep = \"20000000\"\n";
/// Messages to each of the two.
const MESSAGES: usize = 40;
/// For a host that refuses connections to be left alone.
const ACTION_WAIT: Duration = Duration::from_secs(30);

/// How large.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages in the queue.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Put pictures of every page there.
    #[arg(long)]
    pictures: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Starts, fills, looks.
pub fn run(arguments: &Arguments) -> Result<()> {
    let script = Tools::script("install-console");
    let status = Command::new(&script).status().with_context(|| format!("run {}", script.display()))?;
    ensure!(status.success(), "the browser could not be installed; see above");
    let tools = Tools::cache()?.join("console");
    std::fs::copy(Tools::script("console/console.mjs"), tools.join("console.mjs"))?;

    let at = tempfile::Builder::new().prefix("tradewind-console-").tempdir()?;
    let ledger = Arc::new(Ledger::new(arguments.messages + 1));
    let later = Rule::new(Stage::Rcpt, Act::reply("450 4.2.1 come back later")).to(&format!("@{ODD}"));
    let script = Script::accepts_all().with(later);
    let outside = Outside::start(Provider::for_load(script, Some(ledger)), &[BIG])?;
    // Nobody listens there.
    outside.zone.mail_domain(DEAD, "mx.dead.test", "127.0.0.66".parse()?);
    outside.zone.mail_domain(ODD, "mx.odd.test", std::net::Ipv4Addr::LOCALHOST.into());
    let setup = Setup { more: YOUNG, ..outside.setup("auto") };
    let mut daemon = Daemon::start(at.path(), &setup, &Certificate::generate(&["relay.test"])?)?;
    daemon.kill()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filling = Filling { messages: arguments.messages, sites: 5_000, come_back: 1 };
    let bodies = Bodies::new(Sizes::around(1024), arguments.messages);
    runtime.block_on(backlog::fill(&daemon.queue(), filling, bodies))?;
    daemon.start_again()?;
    println!("{} messages are queued", arguments.messages);
    runtime.block_on(submit(&daemon))?;
    wait_for_action(&daemon)?;

    let token = |name: &str, role: &str| -> Result<String> {
        let said = daemon.tradewind(&["token", "add", "--name", name, "--role", role, "--json"])?;
        Ok(serde_json::from_str::<Token>(&said).context("`tradewind token add --json` says no token")?.token)
    };
    let (anna, boris, reader) = (token("anna", "admin")?, token("boris", "admin")?, token("rita", "read")?);
    let pictures = match &arguments.pictures {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            std::path::absolute(folder)?.display().to_string()
        }
        None => "-".to_owned(),
    };
    let mut browser = Command::new(tools.join("node"));
    browser.arg(tools.join("console.mjs")).current_dir(&tools);
    browser.arg(format!("http://{}", daemon.admin)).args([anna, boris, reader]).arg(pictures).arg(MEMBER_DID);
    if !browser.status()?.success() {
        bail!("the console is not as it should be; see above\n{}", daemon.last_lines());
    }
    daemon.stop()
}

async fn submit(daemon: &Daemon) -> Result<()> {
    let local = tokio::task::LocalSet::new();
    let relay = Target::plain(daemon.relay);
    local
        .run_until(async {
            let mut client = Client::connect(&relay).await?;
            let from = format!("noreply@{MEMBER_DOMAIN}");
            // First, before the young source has had its burst.
            let all = std::iter::once((0, ODD)).chain((0..MESSAGES).flat_map(|number| [(number, BIG), (number, DEAD)]));
            for (number, domain) in all {
                let to = format!("user{number}@{domain}");
                let text = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: a test\r\n\r\nHello {number}.\r\n");
                let reply = client.send(&from, &[&to], text.as_bytes()).await?;
                ensure!(reply.code == 250, "{reply:?}");
            }
            client.quit().await?;
            Ok(())
        })
        .await
}

fn wait_for_action(daemon: &Daemon) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < ACTION_WAIT {
        if daemon.tradewind(&["actions", "list", "--json"])?.contains("\"id\"") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("a host that refuses connections led to no automatic action within {} s", ACTION_WAIT.as_secs())
}
