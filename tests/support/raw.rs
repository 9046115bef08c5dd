//! Bytes instead of a client, for input that no client would send.
use super::client::Pipe;
use super::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The key of every upgrade that is made here, and what has to be answered to it (RFC 6455, 1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection on which the test writes every byte itself.
pub struct RawWs {
    stream: Box<dyn Pipe>,
    /// What was read and not used yet.
    rest: Vec<u8>,
}

/// Status line and headers of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// Request line and headers, as a backend got them.
#[derive(Debug)]
pub struct Asked {
    pub line: String,
    head: Head,
}

/// One frame as it came; server frames are not masked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV1 to RSV3 and the opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Head {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Asked {
    /// The value of a header, its name in lower case; it may stand there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {self:?}");
        value
    }

    /// Names, in lower case, and values, in order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.head.headers
    }

    /// All values of a header, its name in lower case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.head.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }
}

impl Frame {
    /// The code of a Close, and its reason.
    pub fn close(&self) -> Option<(u16, String)> {
        let code = self.payload.get(..2)?;
        (self.first == 0x88).then_some(())?;
        Some((u16::from_be_bytes([code[0], code[1]]), String::from_utf8(self.payload[2..].to_vec()).unwrap()))
    }
}

/// A masked frame with the shortest length.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// The header alone of a masked frame that announces this many bytes.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// The mask of [`frame`] and [`header`].
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The lines of a good upgrade; every one can be left out or replaced.
pub fn upgrade_lines(path: &str) -> Vec<String> {
    vec![
        format!("GET {path} HTTP/1.1"),
        "Host: localhost".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        format!("Sec-WebSocket-Key: {KEY}"),
        "Sec-WebSocket-Version: 13".to_owned(),
    ]
}

/// A request head of these lines.
pub fn head_of(lines: &[String]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

/// A good upgrade with more header lines.
pub fn upgrade_head(path: &str, headers: &[&str]) -> String {
    let mut lines = upgrade_lines(path);
    lines.extend(headers.iter().map(|h| (*h).to_owned()));
    head_of(&lines)
}

impl RawWs {
    pub fn over(stream: impl Pipe + 'static) -> RawWs {
        RawWs { stream: Box::new(stream), rest: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// Sends what can still be sent; the other side may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within(self.stream.write_all(bytes.as_ref())).await.is_ok() && within(self.stream.flush()).await.is_ok()
    }

    /// Upgrades, and checks the answer.
    pub async fn upgrade(&mut self, path: &str, headers: &[&str]) -> Head {
        self.send(upgrade_head(path, headers)).await;
        let head = self.read_head().await;
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        head
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let n = within(self.stream.read(&mut chunk)).await.unwrap_or(0);
        self.rest.extend_from_slice(&chunk[..n]);
        n > 0
    }

    /// The next head, `None` where the connection ends before it.
    pub async fn try_read_head(&mut self) -> Option<Head> {
        let (line, headers) = self.try_read_lines().await?;
        Some(Head { status: line.split(' ').nth(1).unwrap().parse().unwrap(), headers })
    }

    /// The next head of a request, where this is a server's side.
    pub async fn try_read_request(&mut self) -> Option<Asked> {
        let (line, headers) = self.try_read_lines().await?;
        Some(Asked { line, head: Head { status: 0, headers } })
    }

    /// First line and headers, `None` where the connection ends before them.
    async fn try_read_lines(&mut self) -> Option<(String, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                assert!(self.rest.is_empty(), "cut off within a head: {}", String::from_utf8_lossy(&self.rest));
                return None;
            }
        };
        let head: Vec<u8> = self.rest.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let headers = lines.map(|l| l.split_once(':').unwrap());
        Some((first, headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect()))
    }

    pub async fn read_head(&mut self) -> Head {
        self.try_read_head().await.expect("the connection ended before an answer")
    }

    /// The body that belongs to this head: by its length, in chunks, or up to the end.
    pub async fn read_body(&mut self, head: &Head) -> Vec<u8> {
        if let Some(length) = head.header("content-length") {
            return self.take(length.parse().unwrap()).await;
        }
        if head.header("transfer-encoding").is_none() {
            while self.fill().await {}
            return std::mem::take(&mut self.rest);
        }
        self.read_chunks().await.0
    }

    /// A chunked body and its trailers.
    pub async fn read_chunks(&mut self) -> (Vec<u8>, Vec<String>) {
        let mut body = Vec::new();
        while let Some(chunk) = self.read_chunk().await {
            body.extend(chunk);
        }
        let mut trailers = Vec::new();
        loop {
            match self.read_line().await {
                line if line.is_empty() => return (body, trailers),
                line => trailers.push(line),
            }
        }
    }

    /// The next chunk, `None` for the last one, after which trailers come.
    pub async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.read_line().await, 16).unwrap();
        if size == 0 {
            return None;
        }
        let mut chunk = self.take(size + 2).await;
        chunk.truncate(size);
        Some(chunk)
    }

    async fn read_line(&mut self) -> String {
        let end = loop {
            match self.rest.windows(2).position(|w| w == b"\r\n") {
                Some(end) => break end,
                None => assert!(self.fill().await, "cut off within a line"),
            }
        };
        String::from_utf8(self.take(end + 2).await).unwrap().trim_end().to_owned()
    }

    /// Exactly this many bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            assert!(self.fill().await, "the connection ended after {} of {length} bytes", self.rest.len());
        }
        self.rest.drain(..length).collect()
    }

    /// The next frame, `None` at the end of the connection.
    pub async fn try_read_frame(&mut self) -> Option<Frame> {
        while self.rest.len() < 2 {
            if !self.fill().await {
                return None;
            }
        }
        let head = self.take(2).await;
        assert_eq!(head[1] & 0x80, 0, "a server must not mask");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).await.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).await.try_into().unwrap()),
            short => u64::from(short),
        };
        Some(Frame { first: head[0], payload: self.take(length as usize).await })
    }

    /// As [`try_read_frame`](Self::try_read_frame), where the connection may also end within a frame.
    pub async fn try_read_whole_frame(&mut self) -> Option<Frame> {
        let needed = |rest: &[u8]| match rest.get(1)? {
            126 => Some(4 + usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]))),
            127 => Some(10 + u64::from_be_bytes(rest.get(2..10)?.try_into().unwrap()) as usize),
            short => Some(2 + usize::from(*short)),
        };
        while needed(&self.rest).is_none_or(|length| self.rest.len() < length) {
            if !self.fill().await {
                return None;
            }
        }
        self.try_read_frame().await
    }

    pub async fn read_frame(&mut self) -> Frame {
        self.try_read_frame().await.expect("the connection ended before a frame")
    }

    /// The next frame has to be a Close with this code; pings before it are skipped. Gives the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        loop {
            let frame = self.read_frame().await;
            if frame.first == 0x89 {
                continue;
            }
            let (number, reason) = frame.close().unwrap_or_else(|| panic!("no Close: {frame:?}"));
            assert_eq!(number, code, "{reason}");
            return reason;
        }
    }

    /// Whatever still comes until the connection ends.
    pub async fn read_to_end(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }

    /// The other side ends the connection in order, without a reset, and sends nothing more.
    pub async fn expect_orderly_end(&mut self) {
        let mut chunk = [0; 4096];
        let read = within(self.stream.read(&mut chunk)).await;
        assert_eq!(read.expect("the connection was reset"), 0, "more came");
        assert!(self.rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.rest));
    }

    /// The other side ends the connection and sends nothing more.
    pub async fn expect_end(&mut self) {
        while self.fill().await {}
        assert!(self.rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.rest));
    }
}
