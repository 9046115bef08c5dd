//! SIGHUP: certificates, keys, and the upstreams of the file are read again.
use super::Parts;
use crate::config::{Config, file};

/// What was found.
#[derive(Default)]
struct Found {
    /// What stays as it was, and why.
    faults: Vec<String>,
    /// The file says something else than at the start that is not read again.
    needs_restart: bool,
}

impl Parts {
    /// Reads them on a thread of its own: no socket waits for a disk.
    pub(super) async fn reload(&self) {
        let (gate, tls) = (self.gate.clone(), self.tls.iter().flatten().cloned().collect::<Vec<_>>());
        let (config, path, upstreams) = (self.config.clone(), self.path.clone(), self.upstreams.clone());
        let reload = move || {
            let mut found = Found::default();
            let read = match file::load(&path) {
                Ok(read) => {
                    found.needs_restart = apart_from_upstreams(&read) != apart_from_upstreams(&config);
                    read.upstreams
                }
                Err(faults) => {
                    found.faults.push(faults.to_string());
                    Vec::new()
                }
            };
            let certificates = tls.iter().filter_map(|tls| tls.reload().err());
            let faults = certificates.chain(upstreams.reload(&read)).map(|error| error.to_string());
            found.faults.extend(faults.chain(gate.reload().err().map(|error| error.to_string())));
            found
        };
        let Ok(found) = tokio::task::spawn_blocking(reload).await else {
            return tracing::error!("reading certificates, keys and upstreams again failed");
        };
        if found.faults.is_empty() {
            tracing::info!("certificates, keys and upstreams were read again");
        }
        found.faults.iter().for_each(|fault| tracing::error!(%fault, "the old ones stay"));
        if found.needs_restart {
            tracing::warn!("the file has changed in more than the settings of its upstreams: that needs a restart");
        }
    }
}

/// What of a configuration a reload does not take, as text. Contents of secrets are not compared.
fn apart_from_upstreams(config: &Config) -> String {
    let Config { server, listeners, auth, ip_limits, routes, upstreams, rooms, cluster, admin, namespaces } = config;
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    format!("{:?}", (server, listeners, auth, ip_limits, routes, names, rooms, cluster, admin, namespaces))
}
