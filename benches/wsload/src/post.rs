//! A keep-alive HTTP client that only posts.
use crate::conn::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One open connection to the address that is posted to.
pub struct Poster {
    tcp: TcpStream,
    host: String,
    path: String,
}

impl Poster {
    /// Connects.
    pub async fn open(url: &str) -> Result<Poster, String> {
        let t = Target::new(url, false)?;
        let tcp = TcpStream::connect(t.addr).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).ok();
        Ok(Poster { tcp, host: t.authority, path: t.path })
    }

    /// Posts one text and waits for the answer; any but a 2xx is an error.
    pub async fn post(&mut self, text: &str) -> Result<(), String> {
        let kind = if text.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
        let req = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
            self.path,
            self.host,
            text.len()
        );
        self.tcp.write_all(req.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut buf = Vec::with_capacity(1024);
        loop {
            if self.tcp.read_buf(&mut buf).await.map_err(|e| e.to_string())? == 0 {
                return Err("the publisher's connection was closed".into());
            }
            let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&buf[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
            if buf.len() < end + 4 + length.unwrap_or(0) {
                continue;
            }
            let status = head.get(9..12).unwrap_or("without a status");
            return if status.starts_with('2') { Ok(()) } else { Err(format!("the publish was answered {status}")) };
        }
    }
}
