//! The rows about DANE (RFC 7672, RFC 7671), and about what is done where nothing was promised (RFC 7435).

use super::case::Expect::{Clear, Deferred, Failed, Tls};
use super::case::{Case, Host, Of, Place, Serves, Shows, Signing, Tweak, Wish};

const UNMATCHED: &str = "no TLSA record vouches for the certificate";
const UNSEEN: &str = "cannot be seen";
const NOT_OFFERED: &str = "does not offer STARTTLS";

/// Domains with a policy of MTA-STS beside their TLSA records, and the host that it names.
pub(super) const BESIDE: [(&str, &str); 2] =
    [("dane-over-sts.test", "mx.else.test"), ("dane-not-sts.test", "mx.dane-not-sts.test")];

/// A host whose record is for another certificate: delivered only where records do not count.
fn mismatch() -> Host {
    Host::new().tlsa(3, 1, 1, Of::Other)
}

/// All rows.
pub(super) fn rows() -> Vec<Case> {
    [pinned(), issued(), unusable(), without_tls(), signatures(), names(), sites(), wishes()].concat()
}

fn pinned() -> Vec<Case> {
    let ee = |selector, matching, of| Host::new().tlsa(3, selector, matching, of);
    vec![
        Case::new("ee-key-sha256", "7672 3.1.1", ee(1, 1, Of::Own), "dane", Tls(1)),
        Case::new("ee-key-sha512", "7672 3.1.1", ee(1, 2, Of::Own), "dane", Tls(1)),
        Case::new("ee-key-whole", "7672 3.1.1", ee(1, 0, Of::Own), "dane", Tls(1)),
        Case::new("ee-cert-sha256", "7672 3.1.1", ee(0, 1, Of::Own), "dane", Tls(1)),
        Case::new("ee-cert-sha512", "7672 3.1.1", ee(0, 2, Of::Own), "dane", Tls(1)),
        Case::new("ee-cert-whole", "7672 3.1.1", ee(0, 0, Of::Own), "dane", Tls(1)),
        Case::new("ee-ended", "7672 3.1.1", ee(1, 1, Of::Own).shows(Shows::SelfSignedEnded), "dane", Tls(1)),
        Case::new("ee-other-name", "7672 3.1.1", ee(1, 1, Of::Own).shows(Shows::SelfSignedForOther), "dane", Tls(1)),
        Case::new("ee-tls12", "7672 3.1.1", ee(1, 1, Of::Own).serves(Serves::Tls12), "dane", Tls(1)),
        Case::new("ee-mismatch", "7672 2.2", mismatch(), "dane", Deferred(UNMATCHED)),
        Case::new("ee-mismatch-tls12", "7672 2.2", mismatch().serves(Serves::Tls12), "dane", Deferred(UNMATCHED)),
        Case::new("ee-mismatch-public", "7672 3.1.1", mismatch().shows(Shows::Public), "dane", Deferred(UNMATCHED)),
        Case::new("ee-rollover", "7671 8.1", ee(1, 1, Of::Other).tlsa(3, 1, 1, Of::Own), "dane", Tls(1)),
        Case::new("ee-weak-digest", "7671 9", ee(1, 1, Of::Own).tlsa(3, 1, 2, Of::Other), "dane", Deferred(UNMATCHED)),
        Case::new("ee-is-not-root", "7671 5.1", ee(1, 1, Of::Root).shows(Shows::Issued), "dane", Deferred(UNMATCHED)),
    ]
}

fn issued() -> Vec<Case> {
    let ta = |selector, matching, of| Host::new().shows(Shows::Issued).tlsa(2, selector, matching, of);
    vec![
        Case::new("ta-cert", "7672 3.1.2", ta(0, 1, Of::Root), "dane", Tls(1)),
        Case::new("ta-key", "7672 3.1.2", ta(1, 1, Of::Root), "dane", Tls(1)),
        Case::new("ta-key-sha512", "7672 3.1.2", ta(1, 2, Of::Root), "dane", Tls(1)),
        Case::new("ta-middle", "7672 3.1.2", ta(1, 1, Of::Middle), "dane", Tls(1)),
        Case::new("ta-whole", "7671 5.2.1", ta(0, 0, Of::Root).shows(Shows::IssuedWithoutRoot), "dane", Tls(1)),
        Case::new("ta-absent", "7672 3.1.2", ta(0, 1, Of::Root).shows(Shows::IssuedWithoutRoot), "dane", Deferred(UNMATCHED)),
        Case::new("ta-for-domain", "7672 3.2.2", ta(1, 1, Of::Root).shows(Shows::IssuedForDomain), "dane", Tls(1)),
        Case::new(
            "ta-other-name",
            "7672 3.2.2",
            ta(1, 1, Of::Root).shows(Shows::IssuedForOther),
            "dane",
            Deferred("other names"),
        ),
        Case::new("ta-ended", "7672 3.2.2", ta(1, 1, Of::Root).shows(Shows::IssuedEnded), "dane", Deferred("has expired")),
        Case::new("ta-mismatch", "7672 2.2", ta(1, 1, Of::Other), "dane", Deferred(UNMATCHED)),
        Case::new("ta-or-ee", "7671 8.1", ta(1, 1, Of::Other).tlsa(3, 1, 1, Of::Own), "dane", Tls(1)),
    ]
}

fn unusable() -> Vec<Case> {
    let pkix = || Host::new().tlsa(1, 1, 1, Of::Other).tlsa(0, 1, 1, Of::Other);
    vec![
        Case::new("pkix-only", "7672 3.1.3", pkix(), "encrypted", Tls(1)),
        Case::new("pkix-and-ee", "7672 3.1.3", pkix().tlsa(3, 1, 1, Of::Other), "dane", Deferred(UNMATCHED)),
        Case::new("pkix-stripped", "7672 2.2", pkix().serves(Serves::Stripped), "encrypted", Deferred(NOT_OFFERED)),
        Case::new("unknown-selector", "7672 2.2", Host::new().tlsa(3, 9, 1, Of::Other), "encrypted", Tls(1)),
        Case::new("unknown-matching", "7672 2.2", Host::new().tlsa(3, 1, 9, Of::Other), "encrypted", Tls(1)),
        Case::new("cut-digest", "7671 10.1", Host::new().tlsa(3, 1, 1, Of::Cut), "encrypted", Tls(1)),
    ]
}

fn without_tls() -> Vec<Case> {
    let ee = |serves| Host::new().tlsa(3, 1, 1, Of::Own).serves(serves);
    let none = |serves| Host::new().serves(serves);
    vec![
        Case::new("stripped", "7672 2.2", ee(Serves::Stripped), "dane", Deferred(NOT_OFFERED)),
        Case::new("starttls-refused", "7672 2.2", ee(Serves::Refused), "dane", Deferred("STARTTLS was refused")),
        Case::new("handshake-broken", "7672 2.2", ee(Serves::Broken), "dane", Deferred("TLS handshake")),
        Case::new("no-promise", "7435", none(Serves::Tls), "opportunistic", Tls(1)),
        Case::new("no-promise-ended", "7435", none(Serves::Tls).shows(Shows::PublicEnded), "opportunistic", Tls(1)),
        Case::new("no-promise-other", "7435", none(Serves::Tls).shows(Shows::PublicForOther), "opportunistic", Tls(1)),
        Case::new("no-promise-stripped", "7435", none(Serves::Stripped), "opportunistic", Clear),
        Case::new("no-promise-refused", "7435", none(Serves::Refused), "opportunistic", Clear),
        Case::new("no-promise-broken", "7435", none(Serves::Broken), "opportunistic", Clear),
    ]
}

fn signatures() -> Vec<Case> {
    let ee = || Host::new().tlsa(3, 1, 1, Of::Own);
    let opportunistic = |name, rule, host| Case::new(name, rule, host, "opportunistic", Tls(1));
    let forged = |name, rule| Case::new(name, rule, ee(), "barred", Deferred(UNSEEN));
    let unroutable = |name, rule| Case::new(name, rule, ee(), "", Deferred("4.4.3"));
    vec![
        opportunistic("unsigned", "7672 2.1.1", mismatch()).zone(Signing::Unsigned),
        opportunistic("island", "7672 2.1.1", mismatch()).zone(Signing::Island),
        opportunistic("unknown-ds", "4035 5.2", mismatch()).tweak(Tweak::UnknownDs),
        opportunistic("unsigned-host", "7672 2.2.2", mismatch().at(Place::Plain)),
        opportunistic("unsigned-mx", "7672 2.2.1", mismatch().at(Place::Signed)).zone(Signing::Unsigned),
        opportunistic("unsigned-tlsa", "7672 2.1.1", mismatch()).tweak(Tweak::UnsignedTlsa),
        Case::new("signed-host", "7672 2.2.2", mismatch().at(Place::Signed), "dane", Deferred(UNMATCHED)),
        forged("forged-tlsa", "7672 2.1.2").tweak(Tweak::Forge("TLSA")),
        forged("servfail-tlsa", "7672 2.1.2").tweak(Tweak::Servfail),
        Case::new("no-denial", "7672 2.1.2", Host::new(), "barred", Deferred(UNSEEN)).tweak(Tweak::NoDenial),
        unroutable("forged-mx", "7672 2.2.1").tweak(Tweak::Forge("MX")),
        unroutable("forged-address", "7672 2.2.2").tweak(Tweak::Forge("A")),
        unroutable("expired-signatures", "4035 5.3").tweak(Tweak::Expired),
        unroutable("wrong-ds", "4035 5.2").tweak(Tweak::WrongDs),
        Case::new("rsasha256", "8624", ee(), "dane", Tls(1)).zone(Signing::RsaSha256),
        Case::new("rsasha256-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::RsaSha256),
        Case::new("ed25519", "8624", ee(), "dane", Tls(1)).zone(Signing::Ed25519),
        Case::new("ed25519-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::Ed25519),
        Case::new("rsasha1-nsec3", "8624", ee(), "dane", Tls(1)).zone(Signing::RsaSha1Nsec3),
        Case::new("rsasha1-nsec3-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::RsaSha1Nsec3),
        Case::new("rsasha1-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::RsaSha1),
        Case::new("rsasha1", "8624", ee(), "dane", Tls(1)).zone(Signing::RsaSha1),
        Case::new("ecdsap384", "8624", ee(), "dane", Tls(1)).zone(Signing::EcdsaP384),
        Case::new("rsasha512", "8624", ee(), "dane", Tls(1)).zone(Signing::RsaSha512),
        Case::new("rsasha512-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::RsaSha512),
        // We do not know it, and what we do not know is unsigned; Unbound does.
        opportunistic("ed448", "4035 5.2", mismatch()).zone(Signing::Ed448).only_with("validate"),
        Case::new("ed448-ad", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::Ed448).only_with("trust-ad"),
        // Denials that are hashed too often prove nothing; what is there is signed all the same.
        opportunistic("nsec3", "9276 3.2", Host::new()).zone(Signing::Nsec3(0)),
        opportunistic("nsec3-10", "9276 3.2", Host::new()).zone(Signing::Nsec3(10)),
        opportunistic("nsec3-200", "9276 3.2", Host::new()).zone(Signing::Nsec3(200)),
        Case::new("nsec3-200-not", "9276 3.2", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::Nsec3(200)),
        Case::new("ecdsap384-not", "8624", mismatch(), "dane", Deferred(UNMATCHED)).zone(Signing::EcdsaP384),
        opportunistic("rsasha1-nsec3-none", "8624", Host::new()).zone(Signing::RsaSha1Nsec3),
    ]
}

fn names() -> Vec<Case> {
    let target = |place| Host::new().alias().at(place);
    vec![
        Case::new("alias", "7672 2.2.3", target(Place::Own).tlsa(3, 1, 1, Of::Own), "dane", Tls(1)),
        Case::new("alias-not", "7672 2.2.3", target(Place::Own).tlsa(3, 1, 1, Of::Other), "dane", Deferred(UNMATCHED)),
        Case::new("alias-own", "7672 2.2.3", target(Place::Own).tlsa(3, 1, 1, Of::Own).tlsa_at_alias(), "dane", Tls(1)),
        Case::new("alias-away", "7672 2.2.3", target(Place::Signed).tlsa(3, 1, 1, Of::Other), "dane", Deferred(UNMATCHED)),
        Case::new("alias-out", "7672 2.2.2", target(Place::Plain).tlsa(3, 1, 1, Of::Other), "opportunistic", Tls(1)),
        Case::new(
            "alias-out-own",
            "7672 2.2.2",
            target(Place::Plain).tlsa(3, 1, 1, Of::Other).tlsa_at_alias(),
            "dane",
            Deferred(UNMATCHED),
        ),
        // The name of the records is an alias (RFC 7671 §7): it counts where all of the way is signed.
        Case::new("tlsa-alias", "7671 7", Host::new().tlsa(3, 1, 1, Of::Own).tlsa_alias(Place::Own), "dane", Tls(1)),
        Case::new("tlsa-alias-not", "7671 7", mismatch().tlsa_alias(Place::Own), "dane", Deferred(UNMATCHED)),
        Case::new("tlsa-alias-away", "7671 7", mismatch().tlsa_alias(Place::Signed), "dane", Deferred(UNMATCHED)),
        Case::new("tlsa-alias-out", "7671 7", mismatch().tlsa_alias(Place::Plain), "opportunistic", Tls(1)),
        // What is asked for by SNI is the TLSA base domain.
        Case::new("sni", "7672 8.1", Host::new().shows(Shows::SelfSignedBySni).tlsa(3, 1, 1, Of::Own), "dane", Tls(1)),
        Case::new(
            "sni-alias",
            "7672 8.1",
            target(Place::Own).shows(Shows::SelfSignedBySni).tlsa(3, 1, 1, Of::Own),
            "dane",
            Tls(1),
        ),
        Case::new(
            "sni-alias-own",
            "7672 8.1",
            target(Place::Own).shows(Shows::SelfSignedBySni).tlsa(3, 1, 1, Of::Own).tlsa_at_alias(),
            "dane",
            Deferred(UNMATCHED),
        ),
        Case::new("no-mx", "7672 2.2.2", Host::new().tlsa(3, 1, 1, Of::Own), "dane", Tls(1)).without_mx(),
        Case::new("no-mx-not", "7672 2.2.2", mismatch(), "dane", Deferred(UNMATCHED)).without_mx(),
    ]
}

fn sites() -> Vec<Case> {
    vec![
        Case::new("first-fails", "7672 2.2.1", mismatch(), "dane", Tls(2)).host(Host::new().tlsa(3, 1, 1, Of::Own)),
        Case::new("both-fail", "7672 2.2.1", mismatch(), "dane", Deferred(UNMATCHED)).host(mismatch()),
        // The domain promises nothing of its second host.
        Case::new("second-without", "7672 2.2.1", mismatch(), "dane", Tls(2)).host(Host::new()),
        Case::new("second-stripped", "7672 2.2.1", mismatch(), "dane", Clear).host(Host::new().serves(Serves::Stripped)),
        // A policy of MTA-STS beside it neither rules out what DANE vouches for nor helps where DANE fails (RFC 8461 §2).
        Case::new("dane-over-sts", "8461 2", Host::new().tlsa(3, 1, 1, Of::Own), "dane", Tls(1))
            .line("_mta-sts TXT \"v=STSv1; id=1;\"")
            .line("mta-sts A 127.0.0.1"),
        Case::new("dane-not-sts", "8461 2", mismatch().shows(Shows::Public), "dane", Deferred(UNMATCHED))
            .line("_mta-sts TXT \"v=STSv1; id=1;\"")
            .line("mta-sts A 127.0.0.1"),
        // Two domains on one host: what one demands is not the other's, and no connection is shared that should not be.
        Case::new("careless", "7672 2.2.1", mismatch().at(Place::Signed), "opportunistic", Tls(1)).zone(Signing::Unsigned),
        Case::new("strict", "7672 2.2.1", Host::new(), "dane", Deferred(UNMATCHED)).shares("careless").after("careless"),
        Case::new("careless-clear", "7672 2.2.1", mismatch().at(Place::Signed).serves(Serves::Stripped), "opportunistic", Clear)
            .zone(Signing::Unsigned),
        Case::new("strict-clear", "7672 2.2.1", Host::new(), "dane", Deferred(NOT_OFFERED))
            .shares("careless-clear")
            .after("careless-clear"),
    ]
}

/// What the sender says beside what the domain promises (RFC 8689).
fn wishes() -> Vec<Case> {
    let pinned = || Host::new().tlsa(3, 1, 1, Of::Own);
    let required = |name, host, demand, expect| Case::new(name, "8689 4.2.1", host, demand, expect).wish(Wish::Required);
    let waived = |name, host, demand, expect| Case::new(name, "8689 4.1", host, demand, expect).wish(Wish::Waived);
    vec![
        required("required-dane", pinned().offers(), "dane", Tls(1)),
        required("required-unoffered", pinned(), "dane", Failed("5.7.30")),
        required("required-mismatch", mismatch().offers(), "dane", Deferred(UNMATCHED)),
        required("required-second", pinned(), "dane", Tls(2)).host(pinned().offers()),
        // Signed MX records name the host, and an authority vouches for it.
        required("required-signed", Host::new().shows(Shows::Public).offers(), "opportunistic", Tls(1)),
        required("required-signed-not", Host::new().offers(), "opportunistic", Deferred("TLS")),
        required("required-unsigned", Host::new().shows(Shows::Public).offers(), "opportunistic", Failed("5.7.30"))
            .zone(Signing::Unsigned),
        waived("waived-mismatch", mismatch(), "dane", Tls(1)),
        waived("waived-stripped", pinned().serves(Serves::Stripped), "dane", Clear),
        waived("waived-bogus", pinned(), "barred", Tls(1)).tweak(Tweak::Forge("TLSA")),
    ]
}
