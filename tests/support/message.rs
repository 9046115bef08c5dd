//! A request of HTTP/1.1 as a backend reads it: by the letter, from what the gateway is known to send.

/// A whole request.
#[derive(Debug)]
pub struct Message {
    /// Request line and fields, without the empty line.
    pub head: String,
    /// Without chunks.
    pub body: Vec<u8>,
    /// Field lines behind the last chunk.
    pub trailers: Vec<String>,
}

impl Message {
    /// The message that these bytes begin with, and its length; `None` where it is not over.
    pub fn first_of(bytes: &[u8]) -> Option<(Message, usize)> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut rest = &bytes[end + 4..];
        let field = |name: &str| {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
            lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        match (&field("content-length")[..], &field("transfer-encoding")[..]) {
            ([], []) => {}
            ([length], []) => {
                let length = length.parse().unwrap();
                body.extend_from_slice(rest.get(..length)?);
                rest = &rest[length..];
            }
            ([], [coding]) => {
                assert_eq!(coding, "chunked", "{head}");
                while let Some(chunk) = chunk(&mut rest)? {
                    body.extend_from_slice(chunk);
                }
                while let line @ [_, ..] = line(&mut rest)? {
                    trailers.push(String::from_utf8_lossy(line).into_owned());
                }
            }
            _ => panic!("two framings came to the backend: {head}"),
        }
        Some((Message { head, body, trailers }, bytes.len() - rest.len()))
    }
}

/// `Some(None)` for the last chunk.
fn chunk<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let size = usize::from_str_radix(std::str::from_utf8(line(rest)?).unwrap(), 16).unwrap();
    if size == 0 {
        return Some(None);
    }
    let chunk = rest.get(..size)?;
    *rest = rest.get(size + 2..)?;
    Some(Some(chunk))
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|w| w == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
