//! The keys that tokens are judged by now.
use super::remote::Remote;
use super::{LoadError, TokenFault, Verifier};
use crate::config::{Auth, KeySource};
use crate::identity::Identity;
use crate::metrics::Metrics;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::time::SystemTime;

/// The keys of `[auth]`, as they were read or fetched last. Shared by all threads.
pub struct Keyring {
    verifier: ArcSwapOption<Verifier>,
    /// Where they are fetched.
    remote: Option<Remote>,
}

impl Keyring {
    /// Reads the keys. Those of a URL are not there until [`fetch`](Self::fetch) has run.
    ///
    /// # Errors
    /// As [`Verifier::load`]; for `https://`, where the system has no certificate authorities.
    pub fn load(auth: &Auth) -> Result<Keyring, LoadError> {
        let remote = match &auth.key {
            Some(KeySource::JwksUrl { url, refresh }) => Some(Remote::new(url, *refresh)?),
            _ => None,
        };
        Ok(Keyring { verifier: ArcSwapOption::new(Verifier::load(auth)?.map(Arc::new)), remote })
    }

    /// Reads the keys again, or has them fetched. On an error the old ones stay.
    ///
    /// # Errors
    /// As [`Verifier::load`].
    pub fn reload(&self, auth: &Auth) -> Result<(), LoadError> {
        match &self.remote {
            Some(remote) => remote.renew(),
            None => self.verifier.store(Verifier::load(auth)?.map(Arc::new)),
        }
        Ok(())
    }

    /// Who a token names. Where keys are fetched and its own is not known, waits for a newer set: up to 5 s, and not at
    /// all where one was asked for within the last 10 s.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenFault> {
        let judged = self.judge(token);
        if let Err(TokenFault::UnknownKey | TokenFault::NoKeys) = judged
            && let Some(remote) = &self.remote
            && remote.fetched().await
        {
            return self.judge(token);
        }
        judged
    }

    fn judge(&self, token: &str) -> Result<Identity, TokenFault> {
        let without = if self.remote.is_some() { TokenFault::NoKeys } else { TokenFault::Invalid };
        self.verifier.load().as_ref().ok_or(without)?.verify(token, SystemTime::now())
    }

    /// Fetches the keys, again and again, where they are fetched; does not end then.
    pub async fn fetch(&self, auth: &Auth, metrics: &Metrics) {
        if let Some(remote) = &self.remote {
            remote.run(auth, &self.verifier, metrics).await;
        }
    }
}
