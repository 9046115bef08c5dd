//! Pieces of `gateway.toml`, to be concatenated in any order.

/// One plain listener on a free port.
pub const PLAIN: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

/// One TLS listener on a free port, with a certificate for localhost that the gateway makes.
pub const TLS: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[listener.tls]]
certificate = "certs/fullchain.pem"
private_key = "certs/privkey.pem"
generate = true
"#;

/// The admin interface on a free port.
pub const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// No tokens anywhere.
pub const OPEN: &str = "[auth]\nrequired = false\nsources = []\n";

/// The secret of [`SECRET_AUTH`].
pub const SECRET: &str = "a secret that only the tests know, 0123456789";

/// Tokens signed with [`SECRET`], from a file that `Gateway::start` writes; more keys of `[auth]` may follow.
pub const SECRET_AUTH: &str = "[auth]\nsecret_file = \"jwt-secret\"\n";

/// `/echo`.
pub const ECHO: &str = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n";

/// `/ws`, rooms.
pub const ROOMS: &str = "[[route]]\npath = \"/ws\"\nservice = \"rooms\"\n";

/// `/live/*` to these backends, which no check comes to; more keys of the upstream may follow.
pub fn proxy(ports: &[u16]) -> String {
    let servers: Vec<String> = ports.iter().map(|p| format!("\"http://127.0.0.1:{p}\"")).collect();
    format!(
        "[[route]]\npath = \"/live/*\"\nservice = \"proxy\"\nupstream = \"live\"\n\
         [upstream.live]\nhealth = {{ interval = \"1h\" }}\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// `address` of a listener of its own kind, with more keys.
pub fn listener(address: &str, more: &str) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n{more}\n")
}

/// A plain listener, `/echo` without tokens, and `[limits]` with these keys.
pub fn echo_with_limits(limits: &str) -> String {
    format!("{PLAIN}{OPEN}{ECHO}[limits]\n{limits}\n")
}

/// A plain listener, `/ws` with tokens, and `[limits]` with these keys.
pub fn rooms_with_limits(limits: &str) -> String {
    format!("{PLAIN}{SECRET_AUTH}{ROOMS}[limits]\n{limits}\n")
}
