//! Commands, the first start, listeners.
use crate::support::gateway::{Setup, binary, wsgate};
use crate::support::*;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a run of the binary printed, both outputs.
fn printed(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn check_accepts_a_good_file() {
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    folder.write("good.toml", format!("{PLAIN}{SECRET_AUTH}{ECHO}{ROOMS}"));
    let output = wsgate(&folder, &["check", "--config", "good.toml"]);
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn check_says_which_files_serve_would_miss() {
    let folder = Folder::new();
    folder.write("good.toml", format!("{PLAIN}{SECRET_AUTH}{ECHO}{ROOMS}"));
    let output = wsgate(&folder, &["check", "--config", "good.toml"]);
    assert!(output.status.success(), "the file itself is good: {}", printed(&output));
    assert!(text(&output.stderr).contains("jwt-secret"), "{}", printed(&output));
}

#[test]
fn check_tells_every_fault_with_its_place() {
    let folder = Folder::new();
    folder
        .write("bad.toml", format!("{PLAIN}{OPEN}{ECHO}[limits]\nmesages_per_second = 5\nping_interval = \"fast\"\n"));
    let output = wsgate(&folder, &["check", "--config", "bad.toml"]);
    let message = printed(&output);
    assert!(!output.status.success() && output.status.code().is_some(), "{message}");
    assert!(message.contains("bad.toml"), "the file is missing: {message}");
    assert!(message.contains("messages_per_second"), "the key that was meant is missing: {message}");
    assert!(message.contains("ping_interval"), "the second fault is missing: {message}");
}

#[test]
fn keys_of_later_features_are_refused_and_not_ignored() {
    for (key, config) in [
        ("systemd", listener("systemd:https", "") + OPEN + ECHO),
        ("acme", TLS.replace("generate = true", "acme = { cache = \"cache\" }") + OPEN + ECHO),
    ] {
        let folder = Folder::new();
        folder.write("gateway.toml", config);
        let output = wsgate(&folder, &["check", "--config", "gateway.toml"]);
        let message = printed(&output);
        assert!(!output.status.success(), "{key} was accepted: {message}");
        assert!(message.contains("not supported yet"), "{key}: {message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new();
    for command in ["check", "serve", "token"] {
        let mut arguments = vec![command, "--config", "nowhere.toml"];
        if command == "token" {
            arguments.extend(["--client", "alice"]);
        }
        let output = wsgate(&folder, &arguments);
        assert!(!output.status.success());
        assert!(printed(&output).contains("nowhere.toml"), "{command}: {}", printed(&output));
    }
}

#[test]
fn token_prints_a_token_that_decodes() {
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    folder.write("gateway.toml", format!("{PLAIN}{SECRET_AUTH}{ECHO}"));
    let arguments =
        ["token", "--client", "alice", "--ttl", "10m", "--claim", "rooms=[\"a-*\"]", "--claim", "broadcast=true"];
    let before = token::now();
    let output = wsgate(&folder, &arguments);
    let after = token::now();
    assert!(output.status.success(), "{}", printed(&output));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1, "one line and nothing else: {printed}");
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let claims =
        jsonwebtoken::decode::<Value>(printed.trim(), &key, &Validation::new(Algorithm::HS256)).unwrap().claims;
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["rooms"], serde_json::json!(["a-*"]));
    assert_eq!(claims["broadcast"], true);
    let expires = claims["exp"].as_i64().unwrap();
    assert!((before + 600..=after + 600).contains(&expires), "{expires} is not ten minutes from {before}");
    assert!(text(&output.stderr).find("eyJ").is_none(), "the token must be on standard output alone");
}

#[test]
fn token_wants_json_claims() {
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    folder.write("gateway.toml", format!("{PLAIN}{SECRET_AUTH}{ECHO}"));
    let output = wsgate(&folder, &["token", "--client", "alice", "--claim", "rooms=[a"]);
    assert!(!output.status.success(), "{}", printed(&output));
}

#[tokio::test]
async fn a_token_of_the_command_opens_a_socket() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}")).await;
    let output = wsgate(&gateway.folder, &["token", "--config", "gateway.toml", "--client", "alice"]);
    let mut client = gateway.open_as("/ws", text(&output.stdout).trim()).await;
    assert_eq!(client.expect("connection_established").await["payload"]["client_id"], "alice");
}

#[tokio::test]
async fn the_first_start_makes_what_is_missing_and_says_what_to_try() {
    let auth = "[auth]\nsecret_file = \"certs/jwt-secret\"\ngenerate_secret = true\n";
    let gateway = Gateway::start(&format!("{TLS}{auth}{ROOMS}")).await;
    for name in ["certs/privkey.pem", "certs/jwt-secret"] {
        let mode = std::fs::metadata(gateway.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name} has mode {mode:o}");
    }
    let address = format!("localhost:{}", gateway.port(0));
    let all = eventually(|| async {
        let all = gateway.output() + &gateway.log();
        (all.contains("token --client") && all.contains(&address)).then_some(all)
    })
    .await;
    assert!(all.contains("https://") || all.contains("wss://"), "{all}");
    assert!(!all.contains("eyJ"), "a token was printed: {all}");
    assert!(!all.contains(gateway.folder.read("certs/jwt-secret").trim()), "the secret was printed");
    let output = wsgate(&gateway.folder, &["token", "--client", "alice"]);
    let bearer = format!("Bearer {}", text(&output.stdout).trim());
    let mut client = Client::open(gateway.tls(0).await, "/ws", &[("Authorization", &bearer)]).await;
    client.expect("connection_established").await;
}

#[tokio::test]
async fn a_second_start_keeps_what_the_first_made() {
    let config = format!("{TLS}[auth]\nsecret_file = \"certs/jwt-secret\"\ngenerate_secret = true\n{ROOMS}");
    let mut first = Gateway::start(&config).await;
    assert!(first.stop().await.success());
    let made: Vec<String> = ["fullchain.pem", "privkey.pem", "jwt-secret"]
        .iter()
        .map(|n| first.folder.read(&format!("certs/{n}")))
        .collect();
    let setup = Setup::new().file("certs/fullchain.pem", &made[0]).file("certs/privkey.pem", &made[1]);
    let second = setup.file("certs/jwt-secret", &made[2]).start(&config).await;
    let now: Vec<String> = ["fullchain.pem", "privkey.pem", "jwt-secret"]
        .iter()
        .map(|n| second.folder.read(&format!("certs/{n}")))
        .collect();
    assert_eq!(made, now);
}

#[test]
fn serve_is_the_default_and_looks_for_gateway_toml_here() {
    let folder = Folder::new();
    folder.write("gateway.toml", "[server]\nshard = 2\n");
    let output = std::process::Command::new(binary()).current_dir(folder.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(printed(&output).contains("shards"), "the key that was meant is missing: {}", printed(&output));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let folder = Folder::new();
    folder.write("gateway.toml", listener(gateway.address(0), "") + OPEN + ECHO);
    let output = wsgate(&folder, &["serve", "--config", "gateway.toml"]);
    assert!(!output.status.success());
    assert!(printed(&output).contains(gateway.address(0)), "{}", printed(&output));
}

#[tokio::test]
async fn a_unix_socket_carries_websockets() {
    let folder = Folder::new();
    let path = folder.path().join("http.sock");
    let config = listener(&format!("unix:{}", path.display()), "") + OPEN + ECHO;
    let gateway = Gateway::start(&config).await;
    let mut client = Client::open(gateway.unix(0).await, "/echo", &[]).await;
    client.text("by file").await;
    assert_eq!(client.next_text().await, "by file");
    assert_eq!(client.close(1000, "").await, Some(1000));
}

#[tokio::test]
async fn a_unix_socket_left_behind_by_a_crash_does_not_prevent_the_next_start() {
    let folder = Folder::new();
    let path = folder.path().join("http.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = listener(&format!("unix:{}", path.display()), "") + OPEN + ECHO;
    let gateway = Gateway::start(&config).await;
    let mut client = Client::open(gateway.unix(0).await, "/echo", &[]).await;
    client.text("again").await;
    assert_eq!(client.next_text().await, "again");
}

#[tokio::test]
async fn several_listeners_serve_the_same_routes() {
    let gateway = Gateway::start(&format!("{TLS}{PLAIN}{PLAIN}{OPEN}{ECHO}")).await;
    let mut secure = Client::open(gateway.tls(0).await, "/echo", &[]).await;
    secure.text("a").await;
    assert_eq!(secure.next_text().await, "a");
    for listener in [1, 2] {
        let tcp = tokio::net::TcpStream::connect(gateway.address(listener)).await.unwrap();
        let mut client = Client::open(tcp, "/echo", &[]).await;
        client.text("b").await;
        assert_eq!(client.next_text().await, "b");
    }
}

#[test]
fn check_refuses_a_log_filter_that_serve_would_not_take() {
    let folder = Folder::new();
    folder.write("gateway.toml", format!("[server]\nlog = \"inof\"\n{PLAIN}{OPEN}{ECHO}"));
    let output = wsgate(&folder, &["check"]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("inof"), "{}", printed(&output));
}

/// The command that is printed signs with the secret of the file that is served.
#[tokio::test]
async fn the_printed_command_names_the_configuration() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}")).await;
    let shown = eventually(|| async { Some(gateway.output()).filter(|o| o.contains("make a token")) }).await;
    let line = shown.lines().find(|l| l.contains("make a token")).unwrap();
    let command = line.trim().strip_prefix("make a token").unwrap();
    assert!(command.contains("--config gateway.toml"), "{command}");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-c", command]).current_dir(gateway.folder.path()).output().unwrap();
    let mut client = gateway.open_as("/ws", text(&output.stdout).trim()).await;
    assert_eq!(client.expect("connection_established").await["payload"]["client_id"], "alice");
}

#[test]
fn a_full_standard_output_is_an_error_and_no_panic() {
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    folder.write("gateway.toml", format!("{PLAIN}{SECRET_AUTH}{ECHO}"));
    for arguments in [&["check"][..], &["token", "--client", "alice"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut command = std::process::Command::new(binary());
        let output = command.args(arguments).current_dir(folder.path()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", printed(&output));
    }
}

/// What the unit provides stands elsewhere here.
#[test]
fn the_configuration_for_systemd_is_good() {
    let folder = Folder::new();
    let given = include_str!("../../systemd/gateway.toml");
    let moved = given.replace("/run/credentials/wsgate.service/", "").replace("/etc/wsgate/", "");
    folder.write("gateway.toml", moved.replace("# /", ""));
    folder.write("admin-token", "0123456789abcdef");
    let output = wsgate(&folder, &["check"]);
    assert!(output.status.success(), "{}", printed(&output));
}
