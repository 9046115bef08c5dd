//! A backend that the test itself plays, byte for byte.
use super::raw::Asked;
use super::{RawWs, within};
use tokio::net::TcpListener;

/// A server on a free port.
pub struct Origin {
    pub port: u16,
    listener: TcpListener,
}

impl Origin {
    pub async fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Origin { port: listener.local_addr().unwrap().port(), listener }
    }

    /// The next connection.
    pub async fn accept(&self) -> RawWs {
        RawWs::over(within(self.listener.accept()).await.unwrap().0)
    }

    /// The next connection that brings a request, and its head; a check of the server's health brings none.
    pub async fn asked(&self) -> (RawWs, Asked) {
        loop {
            let mut connection = self.accept().await;
            if let Some(asked) = connection.try_read_request().await {
                return (connection, asked);
            }
        }
    }
}
