//! HTTP that costs little.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that is kept, and costs little: it knows no more of HTTP than the server's answers need.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

pub struct Answer<'a> {
    head: &'a str,
    body: &'a [u8],
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        Self { stream, received: Vec::with_capacity(4096) }
    }

    pub async fn send(&mut self, request: &[u8]) -> Answer<'_> {
        self.stream.write_all(request).await.expect("the server reads");
        self.received.clear();
        let head = loop {
            self.receive().await;
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.received[..head]).expect("a head of ASCII");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("an answer with a length");
        while self.received.len() < head + length {
            self.receive().await;
        }
        let (head, body) = self.received.split_at(head);
        Answer { head: std::str::from_utf8(head).expect("checked above"), body }
    }

    async fn receive(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.expect("the server answers");
        assert!(read > 0, "the server closed the connection");
    }

    /// The sum of a metric's values, of those with this label.
    pub async fn metric(&mut self, name: &str, label: &str) -> f64 {
        let text = self.send(&get("/metrics")).await.expect(200);
        let lines = std::str::from_utf8(text).expect("UTF-8").lines();
        let wanted =
            lines.filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&format!("\"{label}\"")));
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl<'a> Answer<'a> {
    /// The body of the answer that was hoped for.
    pub fn expect(self, status: u16) -> &'a [u8] {
        let expected = format!("HTTP/1.1 {status}");
        assert!(self.head.starts_with(&expected), "{}{}", self.head, String::from_utf8_lossy(self.body));
        self.body
    }
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ");
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}
