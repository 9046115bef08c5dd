//! RESP3 as it comes: where a frame ends, and what it says.
//!
//! The parser of `redis-protocol` begins anew whenever more has come, trusts lengths and nests by the call stack. So
//! [`Walk`] goes before it, once over every byte: what it lets pass is whole, and within the bounds.
use crate::cluster::script::Reply;
use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;
use std::task::{Context, Poll};
use std::{io, pin::pin};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Largest frame, in bytes.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest line: a length, or a string without one.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most items of a frame, those of inner lists included: each takes a hundred bytes while it is taken apart.
const ITEMS_MAX: usize = 1024 * 1024;
/// How deep lists may be nested.
const DEPTH_MAX: usize = 8;

/// A whole frame.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// The answer of the oldest command.
    Reply(Reply),
    /// The same, where it was refused.
    Error(Box<str>),
    /// A message of a sharded channel.
    Message {
        /// The channel.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// A channel is subscribed: the answer of the oldest command.
    Subscribed,
    /// A channel is not subscribed any more, whether that was asked or not.
    Unsubscribed(Bytes),
    /// Something else that nobody has asked for.
    Other,
}

/// What came is no RESP3, or is beyond a bound.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, malformed.0)
    }
}

/// What has come and is not taken yet.
#[derive(Default)]
pub struct Inbox {
    bytes: BytesMut,
    walk: Walk,
}

impl Inbox {
    /// Reads once. Ready with how many bytes came: 0 where the stream has ended.
    ///
    /// # Errors
    /// Of the stream.
    pub fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            self.bytes.reserve(READ_BYTES);
        }
        // Nothing is lost where it is dropped before it is ready.
        pin!(stream.read_buf(&mut self.bytes)).poll(cx)
    }

    /// The next whole frame. What it holds are slices of what was read: whoever keeps them keeps some 64 KiB.
    ///
    /// # Errors
    /// [`Malformed`]: nothing that follows can be understood.
    pub fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(length) = self.walk.end(&self.bytes)? else { return Ok(None) };
        self.walk = Walk::default();
        let bytes = self.bytes.split_to(length).freeze();
        match decode_range(&bytes) {
            Ok(Some((frame, taken))) if taken == length => frame_of(frame, &bytes).map(Some),
            Ok(_) | Err(_) => Err(Malformed("no RESP3")),
        }
    }
}

/// How far a frame has been walked.
#[derive(Default)]
struct Walk {
    /// Where the next item begins.
    at: usize,
    /// Up to where its line was looked for the end.
    searched: usize,
    items: usize,
    /// Items still to come of each list that is open, the innermost last.
    open: Vec<usize>,
}

impl Walk {
    /// Where the frame ends that these bytes begin with; none where it is not whole. The bytes of the last call must be
    /// there again.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        loop {
            let Some(line) = self.line(bytes)? else { return Ok(None) };
            let next = self.at + line.len() + 2;
            self.items += 1;
            match line.first() {
                Some(b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_') => self.at = next,
                Some(b'$' | b'=' | b'!') => {
                    let end = next + length_of(line)? + 2;
                    if end > FRAME_BYTES_MAX {
                        return Err(Malformed("a frame of more than 64 MiB"));
                    }
                    if bytes.len() < end {
                        self.items -= 1;
                        return Ok(None);
                    }
                    if &bytes[end - 2..end] != b"\r\n" {
                        return Err(Malformed("a string without its end"));
                    }
                    self.at = end;
                }
                Some(kind @ (b'*' | b'~' | b'>' | b'%')) => {
                    let count = length_of(line)? * if *kind == b'%' { 2 } else { 1 };
                    if self.open.len() == DEPTH_MAX || self.items + count > ITEMS_MAX {
                        return Err(Malformed("too many items, or nested too deeply"));
                    }
                    self.at = next;
                    self.open.push(count + 1);
                }
                _ => return Err(Malformed("no RESP3")),
            }
            if self.at > FRAME_BYTES_MAX {
                return Err(Malformed("a frame of more than 64 MiB"));
            }
            // The item that has ended may be the last of its list, and that the last of the next.
            loop {
                let Some(left) = self.open.last_mut() else { return Ok(Some(self.at)) };
                *left -= 1;
                if *left > 0 {
                    break;
                }
                self.open.pop();
            }
        }
    }

    /// The line that the next item begins with, without its end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let from = self.searched.max(self.at);
        let rest = bytes.get(from..).unwrap_or_default();
        let rest = &rest[..rest.len().min(LINE_BYTES_MAX)];
        if let Some(length) = rest.windows(2).position(|two| two == b"\r\n") {
            return Ok(Some(&bytes[self.at..from + length]));
        }
        // The last byte may be half of the end.
        self.searched = from + rest.len().saturating_sub(1);
        if self.searched - self.at >= LINE_BYTES_MAX - 1 {
            return Err(Malformed("a line without an end"));
        }
        Ok(None)
    }
}

fn length_of(line: &[u8]) -> Result<usize, Malformed> {
    let digits = line.get(1..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
    let length = digits.parse().ok().filter(|length| *length <= FRAME_BYTES_MAX);
    length.ok_or(Malformed("a length that is none, or of more than 64 MiB"))
}

fn frame_of(frame: RangeFrame, bytes: &Bytes) -> Result<Frame, Malformed> {
    Ok(match frame {
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            Frame::Error(String::from_utf8_lossy(&bytes[data.0..data.1]).into())
        }
        RangeFrame::Push { data, .. } => push_of(data, bytes)?,
        other => Frame::Reply(reply_of(other, bytes)?),
    })
}

fn push_of(data: Vec<RangeFrame>, bytes: &Bytes) -> Result<Frame, Malformed> {
    let mut items = data.into_iter().map(|item| reply_of(item, bytes));
    let mut text = || match items.next() {
        Some(Ok(Reply::Text(text))) => Some(text),
        Some(Ok(Reply::Nil | Reply::Int(_) | Reply::List(_)) | Err(_)) | None => None,
    };
    let kind = text().ok_or(Malformed("a push without a name"))?;
    Ok(match (&kind[..], text()) {
        (b"smessage", Some(channel)) => {
            Frame::Message { channel, payload: text().ok_or(Malformed("a message without one"))? }
        }
        (b"ssubscribe", Some(_)) => Frame::Subscribed,
        (b"sunsubscribe", Some(channel)) => Frame::Unsubscribed(channel),
        (_, _) => Frame::Other,
    })
}

fn reply_of(frame: RangeFrame, bytes: &Bytes) -> Result<Reply, Malformed> {
    Ok(match frame {
        RangeFrame::BlobString { data, .. }
        | RangeFrame::SimpleString { data, .. }
        | RangeFrame::BigNumber { data, .. }
        | RangeFrame::VerbatimString { data, .. }
        | RangeFrame::SimpleError { data, .. }
        | RangeFrame::BlobError { data, .. } => Reply::Text(bytes.slice(data.0..data.1)),
        RangeFrame::Null => Reply::Nil,
        RangeFrame::Boolean { data, .. } => Reply::Int(i64::from(data)),
        RangeFrame::Number { data, .. } => Reply::Int(data),
        RangeFrame::Double { data, .. } => Reply::Text(data.to_string().into()),
        RangeFrame::Array { data, .. } | RangeFrame::Push { data, .. } => list_of(data, bytes)?,
        RangeFrame::Set { data, .. } => list_of(data, bytes)?,
        RangeFrame::Map { data, .. } => list_of(data.into_iter().flat_map(|(key, value)| [key, value]), bytes)?,
        RangeFrame::Hello { .. } | RangeFrame::ChunkedString(_) => return Err(Malformed("no answer")),
    })
}

fn list_of(items: impl IntoIterator<Item = RangeFrame>, bytes: &Bytes) -> Result<Reply, Malformed> {
    Ok(Reply::List(items.into_iter().map(|item| reply_of(item, bytes)).collect::<Result<_, _>>()?))
}
