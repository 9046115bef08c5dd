//! HTTP/2 frames instead of a client, for what no client would send.
use super::client::Pipe;
use super::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Codes of errors (RFC 9113, section 7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which the test writes every frame itself.
pub struct H2Raw {
    stream: Box<dyn Pipe>,
    /// The code of a GOAWAY that came.
    away: Option<u32>,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: literals without Huffman coding and without an index (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128, "two bytes of length");
            match text.len() {
                length @ 0..127 => bytes.push(length as u8),
                length => bytes.extend([127, (length - 127) as u8]),
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A good extended CONNECT to `/echo`; fields can be left out or replaced.
pub const CONNECT: &[(&str, &str)] = &[
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":path", "/echo"),
    (":authority", "localhost"),
    ("sec-websocket-version", "13"),
];

impl H2Raw {
    /// A connection whose preface and settings were exchanged.
    pub async fn over(stream: impl Pipe + 'static) -> H2Raw {
        let mut raw = H2Raw { stream: Box::new(stream), away: None };
        raw.send(PREFACE).await;
        raw.send(frame(SETTINGS, 0, 0, &[])).await;
        assert_eq!(raw.read().await.unwrap().kind, SETTINGS);
        raw.send(frame(SETTINGS, ACK, 0, &[])).await;
        raw
    }

    /// A connection on which nothing was said.
    pub fn bare(stream: impl Pipe + 'static) -> H2Raw {
        H2Raw { stream: Box::new(stream), away: None }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// Whether the bytes could still be written.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within(self.stream.write_all(bytes.as_ref())).await.is_ok() && within(self.stream.flush()).await.is_ok()
    }

    /// The next frame; `None` at the end.
    pub async fn read(&mut self) -> Option<Frame> {
        self.read_after(&[]).await
    }

    /// The next frame, of which so much has been read.
    async fn read_after(&mut self, before: &[u8]) -> Option<Frame> {
        let mut header = [0; 9];
        header[..before.len()].copy_from_slice(before);
        within(self.stream.read_exact(&mut header[before.len()..])).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        within(self.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes(header[5..].try_into().unwrap());
        if header[3] == GOAWAY {
            self.away = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// The next frame of this type; others are skipped.
    pub async fn skip_to(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().await.unwrap_or_else(|| panic!("the connection ended before a frame {kind}"));
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        }
    }

    /// The next RST_STREAM has to be of this stream; its code.
    pub async fn reset_of(&mut self, stream: u32) -> u32 {
        let frame = self.skip_to(RST_STREAM).await;
        assert_eq!(frame.stream, stream);
        u32::from_be_bytes(frame.payload.try_into().unwrap())
    }

    /// The code of the GOAWAY that ends the connection.
    pub async fn goes_away(&mut self) -> u32 {
        while self.read().await.is_some() {}
        self.away.expect("the connection ended without a GOAWAY")
    }

    /// Reads what is there already. Whether the connection has ended, or a GOAWAY was among it.
    pub async fn went_away(&mut self) -> bool {
        while self.away.is_none() {
            // A frame that has begun comes to its end.
            let Some(first) = futures_util::future::FutureExt::now_or_never(self.stream.read_u8()) else {
                return false;
            };
            match first {
                Ok(first) if self.read_after(&[first]).await.is_some() => (),
                Ok(_) | Err(_) => return true,
            }
        }
        true
    }

    /// The connection works: a PING is answered.
    pub async fn lives(&mut self) {
        self.send(frame(PING, 0, 0, b"are you?")).await;
        loop {
            let pong = self.skip_to(PING).await;
            if pong.flags & ACK != 0 {
                return assert_eq!(pong.payload, b"are you?");
            }
        }
    }
}
