//! What is understood, and what is not.

use super::*;
use clap::CommandFactory;

#[test]
fn the_arguments_fit_together() {
    Args::command().debug_assert();
}

#[test]
fn the_contract_s_verbs_are_understood() {
    for line in [
        "tradewind member add --did did:plc:a --domain a.example --class otp,transactional --json",
        "tradewind --config x.toml member list",
        "tradewind member show did:plc:a",
        "tradewind member add --did did:plc:a --domain a.example --tier small",
        "tradewind member set a.example --tier small",
        "tradewind member suspend a.example",
        "tradewind member resume a.example",
        "tradewind member remove a.example",
        "tradewind credential list a.example",
        "tradewind credential revoke a.example 3 --why leaked",
        "tradewind credential rotate did:plc:a 3 --json",
        "tradewind key import --domain a.example --selector s --file k.pem",
        "tradewind key list --json",
        "tradewind key rotate --domain a.example",
        "tradewind key remove --domain a.example --selector s",
        "tradewind key remove --domain a.example --algorithm ed25519",
        "tradewind key remove --domain a.example --all",
        "tradewind queue list --site big.example --member did:plc:a",
        "tradewind queue show 0000000000001",
        "tradewind queue list --domain big.example --held --limit 10 --after 00ff",
        "tradewind queue hold 0000000000001",
        "tradewind queue hold --member did:plc:a --reason spam",
        "tradewind queue release --domain big.example",
        "tradewind queue cancel 0000000000001 --notify",
        "tradewind queue flush --site mx1.big.example,mx2.big.example",
        "tradewind why 0000000000001",
        "tradewind where big.example --json",
        "tradewind events --after 7 --follow --member did:plc:a --id 0000000000001",
        "tradewind actions list --json",
        "tradewind actions show 17",
        "tradewind actions cancel 17 --why delisted",
        "tradewind actions extend 17 --for 1h --why wait",
        "tradewind sources",
        "tradewind warmup simulate --plan gentle --plan b.toml:b --volume steady:20000 --days 60 --provider-model strict --svg c.svg",
        "tradewind warmup simulate --plan gentle --volume days.csv --provider-model csv:limits.csv --sources 4 --json",
        "tradewind warmup show --json",
        "tradewind warmup show ip-a",
        "tradewind warmup show ip-a google --days 60",
        "tradewind warmup history ip-a google --limit 5 --json",
        "tradewind warmup set ip-a google --stage 4 --why moved",
        "tradewind warmup pin ip-a google 500 --why moved",
        "tradewind warmup complaints ip-a google 3 --why SNDS",
        "tradewind warmup pin ip-a google --off --why moved",
        "tradewind warmup pause ip-a other --why listed",
        "tradewind warmup resume ip-a other --why delisted",
        "tradewind warmup skip ip-a google --why known",
        "tradewind warmup rewind ip-a google --stages 2 --why complaints",
        "tradewind config replies",
        "tradewind config check --config x.toml",
        "tradewind config check --diff",
        "tradewind config describe",
        "tradewind config shaping",
        "tradewind member set a.example --pool apart",
    ] {
        Args::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "tradewind warmup simulate --volume steady:1",
        "tradewind warmup simulate --plan gentle --volume steady:1 --days 0",
        "tradewind warmup set ip-a google --why x",
        "tradewind warmup pin ip-a google --why x",
        "tradewind warmup pin ip-a google 5 --off --why x",
        "tradewind warmup pause ip-a google",
        "tradewind warmup pause ip-a --why x",
        "tradewind warmup show --days 5",
        "tradewind member set a.example",
        "tradewind key remove --domain a.example",
        "tradewind key remove --domain a --all --selector s",
        "tradewind queue cancel",
        "tradewind actions cancel 17",
        "tradewind actions extend 17 --why wait",
        "tradewind queue cancel 0000000000001 --member a",
    ] {
        assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
