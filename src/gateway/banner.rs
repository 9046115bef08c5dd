//! What an operator at a terminal is told to try next. Never a token: it would reach a journal.
use crate::config::{Config, KeySource, Service, TokenSource};

/// Prints the addresses, the command that makes a token, and a line for a client. `program` is the
/// command line that names the same configuration.
pub(super) fn print(config: &Config, addresses: &[(usize, String)], program: &str) {
    let mut text = format!("wsgate {} is ready\n", env!("CARGO_PKG_VERSION"));
    let mut first = None;
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some((_, address)) = addresses.iter().find(|(l, _)| *l == index) else { continue };
        if address.starts_with("unix:") {
            text += &format!("  listens on   {address}\n");
            continue;
        }
        let (http, ws) = if listener.tls.is_empty() { ("http", "ws") } else { ("https", "wss") };
        let port = address.rsplit(':').next().unwrap_or_default();
        let loopback = address.starts_with("127.") || address.starts_with("[::1]");
        let authority = if loopback { format!("localhost:{port}") } else { address.clone() };
        text += &format!("  listens on   {http}://{authority}\n");
        first.get_or_insert((format!("{ws}://{authority}"), !listener.tls.is_empty()));
    }
    let signs = matches!(config.auth.key, Some(KeySource::Secret(_) | KeySource::SecretFile { .. }));
    if signs {
        text += &format!("  make a token {program} token --client alice\n");
    }
    let route = config.routes.iter().find(|r| r.service == Service::Rooms).or(config.routes.first());
    if let (Some((address, tls)), Some(route)) = (first, route) {
        let insecure = if tls { "--no-check " } else { "" };
        let token = format!("$({program} token --client alice)");
        let has = |source| signs && route.auth.required && route.auth.sources.contains(&source);
        let (query, header) = match () {
            () if has(TokenSource::Query) => (format!("?{}={token}", config.auth.query), String::new()),
            () if has(TokenSource::Header) => (String::new(), format!(" -H \"Authorization: Bearer {token}\"")),
            () => (String::new(), String::new()),
        };
        let path = route.name().trim_end_matches('*');
        text += &format!("  connect      npx wscat {insecure}-c \"{address}{path}{query}\"{header}\n");
    }
    print_out(&text);
}

fn print_out(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
