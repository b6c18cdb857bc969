//! What a peer's reply to EHLO offers (RFC 5321 §4.1.1.1).

use crate::reply::Reply;

/// The extensions that we know how to use. After HELO there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: the size of a message may be declared.
    pub size: bool,
    /// RFC 1870: the largest message that is taken, if the peer says.
    pub size_max: Option<u64>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 4954 with PLAIN (RFC 4616).
    pub auth_plain: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 2852.
    pub deliver_by: bool,
    /// RFC 2852: seconds below which a returning BY is refused; zero if the peer names none.
    pub deliver_by_min: u32,
    /// RFC 6710.
    pub mt_priority: bool,
    /// RFC 8689. It counts inside TLS only.
    pub require_tls: bool,
    /// RFC 9422: recipients of a transaction. Also what a peer has shown by 452 4.5.3 that it takes.
    pub rcpt_max: Option<usize>,
    /// RFC 9422: transactions of a session.
    pub mail_max: Option<u32>,
    /// RFC 9422: recipient domains of a transaction.
    pub rcpt_domain_max: Option<usize>,
}

impl Extensions {
    /// Reads the reply to EHLO. What is not understood is not offered.
    pub fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        // The first line is the peer's name.
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or("").to_ascii_uppercase().as_str() {
                "PIPELINING" => offered.pipelining = true,
                "SIZE" => {
                    offered.size = true;
                    // Zero: no fixed maximum.
                    offered.size_max = words.next().and_then(|word| word.parse().ok()).filter(|&size| size > 0);
                }
                "8BITMIME" => offered.eight_bit_mime = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "STARTTLS" => offered.starttls = true,
                "CHUNKING" => offered.chunking = true,
                "DSN" => offered.dsn = true,
                "DELIVERBY" => {
                    offered.deliver_by = true;
                    // A list with commas, of which the first is the only one that is defined.
                    let least = words.next().and_then(|word| word.split(',').next()?.parse().ok());
                    offered.deliver_by_min = least.unwrap_or(0);
                }
                "MT-PRIORITY" => offered.mt_priority = true,
                "REQUIRETLS" => offered.require_tls = true,
                "ENHANCEDSTATUSCODES" => offered.enhanced_status_codes = true,
                "AUTH" => offered.auth_plain = words.any(|word| word.eq_ignore_ascii_case("PLAIN")),
                "LIMITS" => words.for_each(|word| offered.limit(word)),
                _ => {}
            }
        }
        offered
    }

    fn limit(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        // A limit of zero would forbid all mail; more likely it is a mistake.
        let value = value.parse::<u32>().ok().filter(|&value| value > 0);
        if name.eq_ignore_ascii_case("RCPTMAX") {
            self.rcpt_max = value.map(|value| value as usize);
        } else if name.eq_ignore_ascii_case("MAILMAX") {
            self.mail_max = value;
        } else if name.eq_ignore_ascii_case("RCPTDOMAINMAX") {
            self.rcpt_domain_max = value.map(|value| value as usize);
        }
    }
}
