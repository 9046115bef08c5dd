//! Ordinary requests over connections that are kept.
use crate::Common;
use crate::conn::{Io, Target, connect};
use crate::phase::{self, Counted, Phase, WARM_UP};
use crate::report::{Report, histogram};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Measures GET requests, one at a time on each connection, whose answers have a body of `size` bytes.
pub async fn run(c: Common, size: usize) -> Result<Report, String> {
    let target = Target::new(&c.url, true)?;
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.authority);
    for header in &c.headers {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    let phase = Arc::new(Phase::default());
    let mut set = tokio::task::JoinSet::new();
    for i in 0..c.conns {
        let io = connect(&target, i, c.spread).await?;
        set.spawn(one(io, request.clone().into_bytes(), size, phase.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let (secs, cpu) = phase.measure(&c).await;
    let (n, all) = phase::sum(set).await?;
    Ok(Report::default().work("requests", n, secs, cpu).times(&all))
}

async fn one(mut io: Pin<Box<dyn Io>>, request: Vec<u8>, size: usize, phase: Arc<Phase>) -> Counted {
    let mut h = histogram();
    let mut n = 0;
    let mut buf = Vec::with_capacity(4096);
    while !phase.is_over() {
        let t = Instant::now();
        io.write_all(&request).await.map_err(|e| e.to_string())?;
        io.flush().await.map_err(|e| e.to_string())?;
        buf.clear();
        while !whole(&buf, size)? {
            if io.read_buf(&mut buf).await.map_err(|e| e.to_string())? == 0 {
                return Err("the connection was not kept".into());
            }
        }
        if phase.is_measured() {
            h.record(t.elapsed().as_micros() as u64).ok();
            n += 1;
        }
    }
    Ok((n, h))
}

/// Whether all of an answer has come, which must be a 200 with a length of `size`.
fn whole(buf: &[u8], size: usize) -> Result<bool, String> {
    let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(&buf[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    if !head.starts_with("http/1.1 200") || length != Some(size) {
        return Err(format!("not a 200 with {size} bytes: {head}"));
    }
    match buf.len() - end - 4 {
        got if got > size => Err(format!("{got} bytes of a body of {size}")),
        got => Ok(got == size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_wrong() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(whole(&head.as_bytes()[..20], 2), Ok(false));
        assert_eq!(whole(format!("{head}o").as_bytes(), 2), Ok(false));
        assert_eq!(whole(format!("{head}ok").as_bytes(), 2), Ok(true));
        assert!(whole(format!("{head}okay").as_bytes(), 2).is_err());
        assert!(whole(format!("{head}ok").as_bytes(), 3).is_err());
        assert!(whole(head.replace("200", "502").as_bytes(), 2).is_err());
    }
}
