//! The commands of wsgate.
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use wsgate::admission::token;
use wsgate::config::{Config, KeySource, file};
use wsgate::{gateway, logging};

/// A WebSocket gateway: TLS, Origin, JWT and per-message limits at the edge.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The configuration; else ./gateway.toml, else /etc/wsgate/gateway.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default)
    Serve,
    /// Validate the configuration and say everything that is wrong with it
    Check,
    /// Write a JSON Schema of the configuration to standard output, for editors
    Schema,
    /// Sign a token with the configured secret and write it to standard output
    Token(TokenArgs),
}

#[derive(Args)]
struct TokenArgs {
    /// The client that the token names
    #[arg(long, value_name = "ID")]
    client: String,
    /// How long it is good for, as in 90s, 15m, 1h or 7d
    #[arg(long, default_value = "1h", value_parser = file::duration)]
    ttl: Duration,
    /// Another claim, as name=json; may repeat
    #[arg(long = "claim", value_name = "NAME=JSON", value_parser = claim)]
    claims: Vec<(String, serde_json::Value)>,
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, json) = text.split_once('=').ok_or("a claim is NAME=JSON")?;
    let value =
        serde_json::from_str(json).map_err(|e| format!("{json} is not JSON ({e}); a string needs its quotes"))?;
    Ok((name.to_owned(), value))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("wsgate: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    let again = command_line(cli.config.as_deref());
    let load = || {
        let path = cli.config.clone().map_or_else(default_config, Ok)?;
        file::load(&path).map(|config| (path, config)).map_err(|faults| faults.to_string())
    };
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let (path, config) = load()?;
            let _logging = logging::init(&config.server).map_err(|e| e.to_string())?;
            gateway::run(config, &path, &again)
        }
        Command::Check => {
            let (path, config) = load()?;
            // The file is good all the same: it may be checked on a machine that is not to serve it.
            for missing in gateway::missing_files(&config) {
                eprintln!("wsgate: serve would miss: {missing}");
            }
            print_line(&format!("{}: good", path.display()))
        }
        Command::Schema => print_line(&format!("{:#}", file::schema())),
        Command::Token(args) => print_line(&sign(&load()?.1, &args)?),
    }
}

/// `println` would panic where nothing can be written.
fn print_line(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("cannot write to standard output: {e}"))
}

/// This program with this configuration, as a shell takes it.
fn command_line(config: Option<&Path>) -> String {
    let program = quoted(&std::env::args().next().unwrap_or_else(|| "wsgate".into()));
    match config {
        Some(path) => format!("{program} --config {}", quoted(&path.display().to_string())),
        None => program,
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn sign(config: &Config, args: &TokenArgs) -> Result<String, String> {
    if let Some(KeySource::SecretFile { path, generate: true }) = &config.auth.key {
        token::ensure_secret(path).map_err(|e| e.to_string())?;
    }
    token::sign(&config.auth, &args.client, args.ttl, &args.claims, SystemTime::now()).map_err(|e| e.to_string())
}

fn default_config() -> Result<PathBuf, String> {
    let places = ["gateway.toml", "/etc/wsgate/gateway.toml"];
    let found = places.iter().map(Path::new).find(|p| p.exists());
    let none = || format!("there is no configuration: neither {} nor {}; name one with --config", places[0], places[1]);
    found.map(Path::to_owned).ok_or_else(none)
}
