//! Clients that cost next to nothing, so that what is measured is the server: one request after the other on a connection, and a stream of which
//! frames are only counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// Nothing here takes that long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// That the kernel holds for a subscriber.
const RECEIVE_BYTES: u32 = 64 << 10;

/// A connection that is kept.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream), line: String::new() })
    }

    /// The body of the answer to GET, which must be 200.
    pub(super) fn get(&mut self, path: &str, body: &mut Vec<u8>) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: labeler.example.test\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = None;
        let mut first = true;
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line)?;
            let line = self.line.trim_end();
            if first {
                ensure!(line.starts_with("HTTP/1.1 200"), "{path}: {line}");
                first = false;
            }
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        body.resize(length.context("an answer without Content-Length")?, 0);
        Ok(self.stream.read_exact(body)?)
    }
}

/// Subscribes and reads until `frames` binary messages have come; answers their octets.
pub(super) async fn subscribe(address: SocketAddr, path: &str, frames: usize) -> Result<usize> {
    // A thousand of us on one machine: with what the kernel would give each, it has no memory left for any.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    let stream = socket.connect(address).await?;
    let mut stream = tokio::io::BufReader::with_capacity(16 << 10, stream);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: labeler.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line.starts_with("HTTP/1.1 101"), "{path}: {}", line.trim());
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "the answer breaks off");
    }
    let (mut seen, mut octets) = (0, 0);
    while seen < frames {
        // RFC 6455 §5.2; a server does not mask.
        let first = stream.read_u8().await?;
        let length = match stream.read_u8().await? {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            length => u64::from(length),
        };
        let mut left = usize::try_from(length)?;
        while left > 0 {
            let there = stream.fill_buf().await?.len();
            ensure!(there > 0, "a frame breaks off");
            stream.consume(there.min(left));
            left -= there.min(left);
        }
        match first {
            0x82 => (seen, octets) = (seen + 1, octets + usize::try_from(length)?),
            0x88 => bail!("the server closed after {seen} frames"),
            _ => {}
        }
    }
    Ok(octets)
}

/// Waits until something listens there.
pub(super) fn wait_until_open(address: SocketAddr) -> io::Result<()> {
    let began = std::time::Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
