//! Which certificate a handshake is shown.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, SignatureScheme};

/// All certificates of a listener, by the names they are for. Choosing decides nothing about trust:
/// the client checks the name.
#[derive(Default)]
pub(super) struct Choice {
    /// In the order of the configuration; the first is the fallback.
    all: Vec<Arc<CertifiedKey>>,
    /// Lower-case DNS names, wildcards as written (`*.example.com`), to places in `all`.
    names: HashMap<String, Vec<usize>>,
}

impl Choice {
    pub(super) fn add(&mut self, key: CertifiedKey) -> Result<(), Error> {
        let certificate = key.end_entity_cert()?;
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| Error::General(error.to_string()))?;
        for name in parsed.valid_dns_names() {
            self.names.entry(name.to_ascii_lowercase()).or_default().push(self.all.len());
        }
        self.all.push(Arc::new(key));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The first certificate for exactly this name, else for its wildcard (which stands for one whole
    /// label, RFC 9525, 6.3), else the first of all; preferring those whose key can sign what the client understands,
    /// so that an ECDSA and an RSA certificate may share a name.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let exact = name.map(str::to_ascii_lowercase);
        let wildcard = exact.as_ref().and_then(|name| Some(format!("*.{}", name.split_once('.')?.1)));
        let named = [exact, wildcard].into_iter().flatten().filter_map(|name| self.names.get(&name)).flatten();
        let mut candidates = named.map(|place| &self.all[*place]).chain(&self.all).peekable();
        let first = candidates.peek().copied();
        candidates.find(|key| key.key.choose_scheme(schemes).is_some()).or(first).cloned()
    }
}

/// Keys must not be printed.
impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice").field("certificates", &self.all.len()).finish()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
