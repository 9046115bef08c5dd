//! Keys that sign tokens, and a server from which their public halves are fetched.
use super::tls::{self, Authority};
use super::{Token, within};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A P-256 key with a name.
pub struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    pub fn new(kid: &str) -> SigningKey {
        SigningKey { kid: kid.to_owned(), pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    /// A good token of this client.
    pub fn token(&self, client: &str) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        Token::of(client).sign_with(&header, &key)
    }

    fn public(&self) -> Value {
        let point = self.pair.der_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }
}

/// The public halves of these keys, as a JSON Web Key Set.
pub fn set(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

/// What a [`Source`] does with a request.
#[derive(Clone)]
pub enum Answer {
    /// Sends these bytes, and closes.
    Bytes(Vec<u8>),
    /// Nothing, until there is another answer.
    Later,
}

impl Answer {
    /// A whole answer.
    pub fn of(status: &str, body: &str) -> Answer {
        Answer::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    /// A good answer with these keys.
    pub fn keys(keys: &[&SigningKey]) -> Answer {
        Answer::of("200 OK", &set(keys))
    }
}

/// A server of a key set, which counts who asks for it.
pub struct Source {
    pub port: u16,
    answer: watch::Sender<Answer>,
    asked: watch::Receiver<usize>,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Source {
    /// Over plain HTTP.
    pub async fn start(answer: Answer) -> Source {
        Source::listen(answer, None).await
    }

    /// Over TLS, with a certificate for localhost of this authority.
    pub async fn start_tls(answer: Answer, authority: &Authority) -> Source {
        let config = tls::server(&authority.sign("localhost", 4000), None);
        Source::listen(answer, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(answer: Answer, tls: Option<TlsAcceptor>) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, answers) = watch::channel(answer);
        let (count, asked) = watch::channel(0);
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let all = heads.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, count, all, tls) = (answers.clone(), count.clone(), all.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answers, count, all).await,
                        Some(tls) => serve(tls.accept(stream).await.ok()?, answers, count, all).await,
                    }
                });
            }
        });
        Source { port, answer, asked, heads, task }
    }

    /// Answers otherwise from now on.
    pub fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// How often it was asked.
    pub fn fetches(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so often.
    pub async fn fetched(&self, times: usize) {
        let mut asked = self.asked.clone();
        within(asked.wait_for(|n| *n >= times)).await.unwrap();
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl super::client::Pipe,
    mut answers: watch::Receiver<Answer>,
    count: watch::Sender<usize>,
    heads: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    count.send_modify(|n| *n += 1);
    let answer = answers.wait_for(|answer| matches!(answer, Answer::Bytes(_))).await.ok()?.clone();
    if let Answer::Bytes(bytes) = answer {
        stream.write_all(&bytes).await.ok()?;
        stream.shutdown().await.ok()?;
    }
    Some(())
}
