//! A command and its answer, as redis-cli has them.
use crate::support::within;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An answer, or an error in Redis' words.
pub type Said = Result<Value, String>;

/// The answer of the server at this port.
pub async fn once(port: u16, words: &[&str]) -> Said {
    within(try_once(port, words)).await.unwrap_or_else(|| panic!("no Redis answers {words:?} at {port}"))
}

/// `None` where there is no answer.
pub async fn try_once(port: u16, words: &[&str]) -> Option<Said> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.ok()?);
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).await.ok()?;
    read(&mut stream).await
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Said> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let line = line.strip_suffix("\r\n")?;
    let (kind, rest) = line.split_at_checked(1)?;
    let count = || rest.parse::<i64>().unwrap();
    match kind {
        "+" => Some(Ok(rest.into())),
        "-" => Some(Err(rest.to_owned())),
        ":" => Some(Ok(count().into())),
        "$" if count() < 0 => Some(Ok(Value::Null)),
        "$" => {
            let mut bytes = vec![0; count() as usize + 2];
            stream.read_exact(&mut bytes).await.ok()?;
            bytes.truncate(bytes.len() - 2);
            Some(Ok(String::from_utf8_lossy(&bytes).into_owned().into()))
        }
        "*" if count() < 0 => Some(Ok(Value::Null)),
        "*" => {
            let mut items = Vec::new();
            for _ in 0..count() {
                items.push(Box::pin(read(stream)).await?.unwrap_or_else(Value::from));
            }
            Some(Ok(items.into()))
        }
        _ => panic!("Redis said {line:?}"),
    }
}
