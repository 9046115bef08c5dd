//! The server of a URL that the configuration names: an application that is asked, or where keys of tokens are fetched.
use super::{addresses, connect_any};
use crate::config::keys::LoadError;
use crate::outbox::wire::Stream;
use crate::tls::client;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Most look-ups of the name at once.
const LOOKUPS_MAX: usize = 4;

/// Where a URL leads.
pub struct Origin {
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The header `Host`.
    pub authority: HeaderValue,
    /// Path and query.
    pub path: Uri,
    lookups: Arc<Semaphore>,
}

impl Origin {
    /// Of `http://HOST[:PORT]/PATH` or `https://…`, without a user's name. The certificate of the latter must chain to
    /// an authority of the system, whose files are read here: not to be called on a shard's thread.
    ///
    /// # Errors
    /// Where it is no such URL, or the system has no authorities.
    pub fn new(url: &str) -> Result<Origin, LoadError> {
        let fault = || LoadError::about("a URL", "not http:// or https://, a host, and a path");
        let uri: Uri = url.parse().map_err(|_| fault())?;
        let authority = uri.authority().filter(|a| !a.as_str().contains('@') && !a.host().is_empty());
        let authority = authority.ok_or_else(fault)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => None,
            Some(scheme) if *scheme == Scheme::HTTPS => {
                let name = ServerName::try_from(host.clone()).map_err(|_| fault())?;
                Some((TlsConnector::from(client::config(None, None)?), name))
            }
            _ => return Err(fault()),
        };
        let usual_port = if tls.is_some() { 443 } else { 80 };
        Ok(Origin {
            port: authority.port_u16().unwrap_or(usual_port),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| fault())?,
            path: uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| fault())?,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            host,
            tls,
        })
    }

    /// Tries the addresses of the name in turn, each for its share of the time until `deadline`, TLS included.
    ///
    /// # Errors
    /// Of the last one.
    pub async fn connect(&self, deadline: Instant) -> io::Result<Stream> {
        let addresses = addresses(&self.lookups, &self.host, self.port).await?;
        connect_any(&addresses, self.tls.as_ref().map(|(connector, name)| (connector, name)), deadline).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let origin = Origin::new("http://[::1]:81/x?y").unwrap();
        assert_eq!((&*origin.host, origin.port, origin.tls.is_some()), ("::1", 81, false));
        assert_eq!((origin.authority.to_str().unwrap(), &*origin.path.to_string()), ("[::1]:81", "/x?y"));
        assert_eq!(Origin::new("http://a.test").unwrap().port, 80);
        for url in ["ftp://a.test/", "http://u@a.test/", "/x", "a.test", "unix:/x", "http://"] {
            assert!(Origin::new(url).is_err(), "{url}");
        }
    }
}
