//! What a provider says later: reports (RFC 3464) about messages that it had taken, on their way to the reverse-path.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::Stream as _;
use tokio::time::Instant;

use super::provider::{Message, Provider};
use crate::background::Background;
use crate::source::{Client, Target};

/// How often somebody looks whether a report is due.
const PACE: Duration = Duration::from_millis(200);

/// A report that is due at some time.
#[derive(Clone, Debug)]
pub struct Report {
    /// When, since the provider's beginning.
    pub due: Duration,
    /// To whom: the reverse-path of the message. Its own is null (RFC 3464 §2).
    pub to: String,
    /// The report.
    pub octets: Bytes,
}

impl Report {
    /// About all recipients of a message: they are unknown.
    pub(super) fn of(message: &Message, host: &str, after: Duration) -> Self {
        let Message { reverse_path: to, recipients, octets, .. } = message;
        let end = memchr::memmem::find(octets, b"\r\n\r\n").map_or(octets.len(), |at| at + 2);
        let mut text = format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: <{to}>\r\nSubject: Undelivered Mail Returned to Sender\r\n\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"=_later\"\r\n\r\n\
             --=_later\r\nContent-Type: text/plain\r\n\r\nThe mailbox is unknown.\r\n\
             --=_later\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {host}\r\n"
        );
        for recipient in recipients {
            text.push_str(&format!(
                "\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
                 Diagnostic-Code: smtp; 550 5.1.1 no such mailbox\r\n"
            ));
        }
        text.push_str("--=_later\r\nContent-Type: text/rfc822-headers\r\n\r\n");
        let octets = [text.as_bytes(), &octets[..end], b"\r\n--=_later--\r\n"].concat().into();
        Self { due: message.at + after, to: to.clone(), octets }
    }
}

/// Sends each report when it is due to one host, over sockets, until it is dropped. `began` with the provider's listener.
pub struct Post(#[expect(dead_code, reason = "it sends while it lives")] Background);

/// See [`Post`].
pub fn post_to(provider: Arc<Provider>, host: SocketAddr) -> io::Result<Post> {
    let began = Instant::now();
    let sending = Background::start("post", move || async move {
        loop {
            for report in provider.take_reports(began.elapsed()) {
                let mut client = Client::connect(&Target::plain(host)).await.map_err(io::Error::other)?;
                client.send_with("", "", &[&report.to], &report.octets).await.map_err(io::Error::other)?;
                client.quit().await.map_err(io::Error::other)?;
            }
            tokio::time::sleep(PACE).await;
        }
    })?;
    Ok(Post(sending))
}

/// Sends one report from an address over `host`'s network, such as a simulated one.
pub async fn post_on(net: &host::Net, from: IpAddr, to: SocketAddr, report: &Report) -> io::Result<()> {
    let wait = || host::deadline_in(Duration::from_secs(300));
    let mut connection = net.connect(Some(from), to, wait()).await?;
    let stuffed = String::from_utf8_lossy(&report.octets).replace("\r\n.", "\r\n..");
    let rcpt = format!("RCPT TO:<{}>\r\n", report.to);
    let message = format!("{stuffed}.\r\n");
    let mut said = connection.read(wait()).await?;
    for line in ["HELO later.example\r\n", "MAIL FROM:<>\r\n", &rcpt, "DATA\r\n", &message, "QUIT\r\n"] {
        if !matches!(said.first(), Some(b'2' | b'3')) {
            break;
        }
        connection.write(Bytes::copy_from_slice(line.as_bytes()), wait()).await?;
        said = connection.read(wait()).await?;
    }
    connection.close().await;
    match said.starts_with(b"221") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&said).into_owned())),
    }
}
