//! `labeler fuzz`: the fuzz targets of `labeler/fuzz`, each for some minutes, by libFuzzer.
//!
//! Built by the compiler that the project is built with (no nightly, no clang, but a C++ compiler for libFuzzer itself): the pass that counts
//! coverage is in every LLVM. In a folder of its own in `target/`, optimised, with checks of overflow. New inputs stay in `target/fuzz/found`;
//! `--keep` puts the fewest that cover all into the repository's corpus, which `cargo test` replays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// For one input; the longest takes some milliseconds.
const INPUT_SECONDS_MAX: u32 = 5;
/// For all of the process: an input that makes a parser hoard is a finding.
const MEMORY_MIB_MAX: u32 = 512;
/// Longer inputs teach nothing that shorter ones do not.
const INPUT_BYTES_MAX: u32 = 4096;
/// Inputs of one target in the repository.
const KEPT_MAX: usize = 60;

const TARGETS: [&str; 9] = ["label", "car", "did", "txt", "jwt", "frames", "smtp-server", "smtp-client", "smtp-parameters"];

/// How long, and which.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Minutes for each target; parts of one too.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only this target.
    #[arg(long, value_parser = TARGETS)]
    only: Option<String>,
    /// Put the fewest inputs that cover everything into the repository's corpus.
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the repository")?;
    // To libFuzzer 0 seconds are no bound at all.
    let seconds = (arguments.minutes * 60.0).ceil();
    ensure!(seconds >= 1.0 && seconds <= f64::from(u32::MAX), "--minutes must be more than 0, such as 0.5");
    let program = build(root)?;
    let mut findings = Vec::new();
    println!("{:16} {:>10} {:>9} {:>9} {:>7}  findings", "target", "runs", "edges", "features", "corpus");
    for name in TARGETS.iter().filter(|name| arguments.only.as_ref().is_none_or(|only| only == *name)) {
        let target = Target::new(root, &program, name)?;
        let found = target.fuzz(seconds)?;
        if arguments.keep && found.is_none() {
            target.keep()?;
        }
        findings.extend(found);
    }
    ensure!(findings.is_empty(), "findings; give one to the program as its argument: {findings:#?}");
    Ok(())
}

/// The program with all targets.
fn build(root: &Path) -> Result<PathBuf> {
    let rustc = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let said = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder = root.join("target/fuzz");
    // What cargo-fuzz passes without a sanitizer; with a host named, programs that only build are left out of it.
    let flags = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                 -Cllvm-args=-sanitizer-coverage-trace-compares";
    let status = Command::new("cargo")
        .args(["build", "--locked", "--release", "--package", "tradewind-fuzz", "--features", "libfuzzer", "--target", host])
        .arg("--target-dir")
        .arg(&folder)
        .current_dir(root)
        .env("RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the targets do not build; see above");
    Ok(folder.join(host).join("release/tradewind-fuzz"))
}

struct Target<'a> {
    name: &'a str,
    program: &'a Path,
    /// The corpus of the repository.
    corpus: PathBuf,
    /// What was found on top of it, here and earlier.
    found: PathBuf,
}

impl<'a> Target<'a> {
    fn new(root: &Path, program: &'a Path, name: &'a str) -> Result<Self> {
        let (corpus, found) = (root.join("labeler/fuzz/corpus").join(name), root.join("target/fuzz/found").join(name));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&found)?;
        Ok(Self { name, program, corpus, found })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env("FUZZ_TARGET", self.name).arg(format!("-max_len={INPUT_BYTES_MAX}"));
        command.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        command
    }

    /// Runs, and tells of it; the finding, if there is one.
    fn fuzz(&self, seconds: f64) -> Result<Option<PathBuf>> {
        let log = self.found.with_extension("log");
        let mut command = self.command();
        command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        command.arg(format!("-artifact_prefix={}-", self.found.with_extension("finding").display()));
        command.args([&self.found, &self.corpus]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?).status()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let stat = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("?").to_owned();
        let seen = |name: &str| {
            let last = said.lines().rfind(|line| line.contains(" cov: ")).unwrap_or_default();
            last.split(name).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("?").to_owned()
        };
        let finding = said.lines().find_map(|line| line.split("Test unit written to ").nth(1)).map(PathBuf::from);
        println!(
            "{:16} {:>10} {:>9} {:>9} {:>7}  {}",
            self.name,
            stat("stat::number_of_executed_units:"),
            seen(" cov: "),
            seen(" ft: "),
            seen(" corp: ").split('/').next().unwrap_or("?"),
            finding.as_ref().map_or("none".into(), |path| path.display().to_string()),
        );
        if !status.success() && finding.is_none() {
            bail!("{} ended with {status}; see {}", self.name, log.display());
        }
        Ok(finding)
    }

    /// The fewest inputs that cover all that any of them covers; of too many, some of every length. Seeds and inputs of findings, whose
    /// names say so, stay.
    fn keep(&self) -> Result<()> {
        let least = self.found.with_extension("least");
        let _ = fs::remove_dir_all(&least);
        fs::create_dir_all(&least)?;
        let mut command = self.command();
        let status =
            command.arg("-set_cover_merge=1").args([&least, &self.corpus, &self.found]).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{}: the corpus cannot be reduced", self.name);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&least)? {
            let entry = entry?;
            kept.push((entry.metadata()?.len(), entry.path()));
        }
        kept.sort();
        let mut stays = 0;
        for entry in fs::read_dir(&self.corpus)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| ["seed-", "finding-"].iter().any(|it| name.to_string_lossy().starts_with(it)))
            {
                stays += 1;
            } else {
                fs::remove_file(path)?;
            }
        }
        let every = kept.len() / (KEPT_MAX.saturating_sub(stays) + 1) + 1;
        for (_, path) in kept.iter().skip(every - 1).step_by(every) {
            fs::copy(path, self.corpus.join(path.file_name().unwrap_or_default()))?;
        }
        println!("{:16} {} inputs kept of {}", self.name, kept.len() / every + stays, kept.len() + stays);
        Ok(())
    }
}
