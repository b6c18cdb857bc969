//! A row of the table: a recipient domain, its zone, its hosts, and what must become of mail to it.

/// One row. Its domain is `NAME.test`, in a zone of its own.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// A DNS label.
    pub(super) name: &'static str,
    /// Where the rule stands.
    pub(super) rule: &'static str,
    /// How its zone is signed.
    pub(super) zone: Signing,
    /// Its MX hosts, the most preferred first. None: no MX records, and the domain is its own host.
    pub(super) hosts: Vec<Host>,
    /// Whether there are MX records.
    pub(super) has_mx: bool,
    /// Has the hosts of another row, by its name.
    pub(super) shares: Option<&'static str>,
    /// Tried once that row has its verdict, while its connections are still open.
    pub(super) after: Option<&'static str>,
    /// What is done to the zone once it is signed.
    pub(super) tweaks: Vec<Tweak>,
    /// More lines of the zone file; `{domain}` is the row's domain.
    pub(super) lines: Vec<String>,
    /// What must become of the mail.
    pub(super) expect: Expect,
    /// What the sender says about TLS.
    pub(super) wish: Wish,
    /// Only tried with this value of `dnssec`: what the two validators know differs.
    pub(super) only_with: Option<&'static str>,
    /// What must be demanded of the first host: the first word of `demand` in `tradewind where`. Empty: not looked at.
    pub(super) demand: &'static str,
}

/// How a zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Signing {
    EcdsaP256,
    RsaSha256,
    RsaSha512,
    Ed25519,
    Ed448,
    RsaSha1Nsec3,
    RsaSha1,
    EcdsaP384,
    /// ECDSA P-256 with NSEC3, hashed so many times more.
    Nsec3(u16),
    /// Not.
    Unsigned,
    /// Signed, and the parent has no DS record.
    Island,
}

/// What is done to a signed zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tweak {
    /// The last digit of every record of this type is another one.
    Forge(&'static str),
    /// Its signatures ended last month.
    Expired,
    /// The parent's DS record is for another key.
    WrongDs,
    /// The parent's DS record has an algorithm that nobody knows.
    UnknownDs,
    /// The records that deny others are gone.
    NoDenial,
    /// The name server has no data for what is below `_tcp` of the first host.
    Servfail,
    /// What is below `_tcp` of the first host is another zone, which nobody signs.
    UnsignedTlsa,
}

/// Which zone a host's name is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The domain's own.
    Own,
    /// One that is signed.
    Signed,
    /// One that is not.
    Plain,
}

/// An MX host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) place: Place,
    pub(super) serves: Serves,
    pub(super) shows: Shows,
    /// Usage, selector, matching and what of.
    pub(super) tlsa: Vec<(u8, u8, u8, Of)>,
    /// The MX record names an alias in the domain's own zone.
    pub(super) alias: bool,
    /// The TLSA records are the alias's.
    pub(super) tlsa_at_alias: bool,
    /// The name of its TLSA records is itself an alias, of a name in this zone.
    pub(super) tlsa_alias: Option<Place>,
    /// It offers REQUIRETLS.
    pub(super) offers: bool,
}

/// How a host speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// STARTTLS as it should be.
    Tls,
    /// The same, without TLS 1.3.
    Tls12,
    /// STARTTLS is not offered, as when somebody strips it.
    Stripped,
    /// It is offered and then refused.
    Refused,
    /// It is offered, and the handshake breaks.
    Broken,
}

/// Which certificate a host shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    SelfSigned,
    SelfSignedEnded,
    SelfSignedForOther,
    /// Under an intermediate and a root that no store has; both are in the chain.
    Issued,
    /// The same without the root in the chain.
    IssuedWithoutRoot,
    IssuedEnded,
    IssuedForOther,
    /// For the recipient domain.
    IssuedForDomain,
    /// Self-signed for its own name, to clients that ask for that name (SNI); to others one that no record names.
    SelfSignedBySni,
    /// By the authority that the daemon trusts.
    Public,
    PublicEnded,
    PublicForOther,
}

/// What a TLSA record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Own,
    Middle,
    Root,
    /// A certificate that is not there.
    Other,
    /// Octets that are too few.
    Cut,
}

/// What must become of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Delivered under TLS at this host, counted from 1.
    Tls(usize),
    /// Delivered in clear text.
    Clear,
    /// Deferred, with these words.
    Deferred(&'static str),
    /// Failed, with these words.
    Failed(&'static str),
}

/// What a sender says about TLS (RFC 8689).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    None,
    Waived,
    Required,
}

impl Host {
    /// With STARTTLS and a certificate of its own making.
    pub(super) fn new() -> Self {
        Host {
            place: Place::Own,
            serves: Serves::Tls,
            shows: Shows::SelfSigned,
            tlsa: Vec::new(),
            alias: false,
            tlsa_at_alias: false,
            tlsa_alias: None,
            offers: false,
        }
    }

    pub(super) fn at(self, place: Place) -> Self {
        Host { place, ..self }
    }

    pub(super) fn serves(self, serves: Serves) -> Self {
        Host { serves, ..self }
    }

    pub(super) fn shows(self, shows: Shows) -> Self {
        Host { shows, ..self }
    }

    pub(super) fn tlsa(mut self, usage: u8, selector: u8, matching: u8, of: Of) -> Self {
        self.tlsa.push((usage, selector, matching, of));
        self
    }

    pub(super) fn alias(self) -> Self {
        Host { alias: true, ..self }
    }

    pub(super) fn tlsa_alias(self, place: Place) -> Self {
        Host { tlsa_alias: Some(place), ..self }
    }

    pub(super) fn offers(self) -> Self {
        Host { offers: true, ..self }
    }

    pub(super) fn tlsa_at_alias(self) -> Self {
        Host { tlsa_at_alias: true, ..self }
    }
}

impl Case {
    /// Signed by ECDSA P-256, with one host.
    pub(super) fn new(name: &'static str, rule: &'static str, host: Host, demand: &'static str, expect: Expect) -> Self {
        Case {
            name,
            rule,
            zone: Signing::EcdsaP256,
            hosts: vec![host],
            has_mx: true,
            shares: None,
            after: None,
            tweaks: Vec::new(),
            lines: Vec::new(),
            wish: Wish::None,
            only_with: None,
            expect,
            demand,
        }
    }

    pub(super) fn zone(self, zone: Signing) -> Self {
        Case { zone, ..self }
    }

    /// A further host, less preferred.
    pub(super) fn host(mut self, host: Host) -> Self {
        self.hosts.push(host);
        self
    }

    pub(super) fn without_mx(self) -> Self {
        Case { has_mx: false, ..self }
    }

    pub(super) fn tweak(mut self, tweak: Tweak) -> Self {
        self.tweaks.push(tweak);
        self
    }

    pub(super) fn wish(self, wish: Wish) -> Self {
        Case { wish, ..self }
    }

    /// Only tried with this value of `dnssec`.
    pub(super) fn only_with(self, dnssec: &'static str) -> Self {
        Case { only_with: Some(dnssec), ..self }
    }

    /// Has the hosts of another row.
    pub(super) fn shares(self, name: &'static str) -> Self {
        Case { shares: Some(name), hosts: Vec::new(), ..self }
    }

    pub(super) fn after(self, name: &'static str) -> Self {
        Case { after: Some(name), ..self }
    }

    /// One more line of the zone file.
    pub(super) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub(super) fn domain(&self) -> String {
        format!("{}.test", self.name)
    }

    /// The real name of its host `nth`, counted from 1.
    pub(super) fn host_name(&self, nth: usize) -> String {
        let host = &self.hosts[nth - 1];
        match host.place {
            _ if !self.has_mx => self.domain(),
            Place::Own => format!("mx{nth}.{}", self.domain()),
            Place::Signed => format!("{}-{nth}.signed.test", self.name),
            Place::Plain => format!("{}-{nth}.plain.test", self.name),
        }
    }

    /// What the MX record calls it.
    pub(super) fn mx_name(&self, nth: usize) -> String {
        if self.hosts[nth - 1].alias { format!("alias{nth}.{}", self.domain()) } else { self.host_name(nth) }
    }
}
