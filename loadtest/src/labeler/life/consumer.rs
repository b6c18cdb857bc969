//! A consumer of the labels that is not ours: @atproto's packages in Node, which see the stream from its beginning and
//! queryLabels.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::interop::install::Tools;

const PATIENCE: Duration = Duration::from_secs(60);

/// The process; killed when dropped.
pub(super) struct Consumer {
    child: Child,
    ask: ChildStdin,
    answers: Receiver<String>,
}

/// What it has seen.
#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    /// Labels in force by DID.
    pub(super) force: HashMap<String, BTreeSet<String>>,
    /// Labels that were ever issued, by DID, negations included.
    pub(super) said: HashMap<String, usize>,
    /// Frames in the stream from its beginning.
    pub(super) frames: usize,
    /// The last one's number.
    pub(super) last: usize,
    /// What must not be.
    pub(super) wrong: Vec<String>,
}

impl Consumer {
    pub(super) fn start(tools: &Tools, labeler_url: &str, did: &str) -> Result<Self> {
        let mut command = tools.node("labels.mjs");
        command.args([labeler_url, did]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start Node")?;
        let ask = child.stdin.take().context("no pipe")?;
        let said = BufReader::new(child.stdout.take().context("no pipe")?);
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, ask, answers })
    }

    /// Everything anew: the stream from its beginning, all of queryLabels, every signature.
    pub(super) fn look(&mut self) -> Result<Verdict> {
        self.ask.write_all(b"look\n")?;
        let answer = self.answers.recv_timeout(PATIENCE).context("the consumer in Node does not answer")?;
        serde_json::from_str(&answer).with_context(|| answer.clone())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
