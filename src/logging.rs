//! Log lines: text or JSON on standard error, and the one line that every session leaves.
mod lines;

use crate::close::Close;
use crate::config::{LogFormat, Server, filter};
use lines::Lines;
use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// Why logging could not be set up.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The filter is faulty; what is wrong with it.
    Filter(String),
    /// It has been set up before, here or by someone else.
    Already,
    /// The thread that writes the lines could not be started.
    Thread(String),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Filter(why) => write!(f, "the log filter is faulty: {why}"),
            Error::Already => f.write_str("logging has been set up before"),
            Error::Thread(why) => write!(f, "the log thread cannot start: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// Keeps the lines coming; when dropped, those that wait are written. For `main` to hold.
#[derive(Debug)]
#[must_use = "lines that wait are written when this is dropped"]
pub struct Logging {
    lines: Lines,
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.flush();
    }
}

/// Sets up the logging of the whole process.
///
/// Lines are written by a thread of their own: a full pipe or a slow journal holds up no shard, it
/// loses lines, which a later line counts.
///
/// # Errors
/// For a faulty filter, and at the second call.
pub fn init(server: &Server) -> Result<Logging, Error> {
    let filter = filter::parse(&server.log).map_err(Error::Filter)?;
    let lines = Lines::to(std::io::stderr()).map_err(|e| Error::Thread(e.to_string()))?;
    let ansi = std::io::stderr().is_terminal();
    subscriber(filter, server.log_format, ansi, lines.clone()).try_init().map_err(|_| Error::Already)?;
    Ok(Logging { lines })
}

fn subscriber<W>(filter: EnvFilter, format: LogFormat, ansi: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Below this h2 quotes paths that it does not understand, and a path may hold a token.
    let quiet = ["h2=warn", "h2::server=warn"].into_iter().filter_map(|quiet| quiet.parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(writer);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    }
}

/// What is said of a session when it has ended.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// The route's path as in the configuration.
    pub route: &'a str,
    /// The client's name.
    pub client: &'a str,
    /// The client's address.
    pub peer: &'a dyn Display,
    /// From the upgrade to the end.
    pub duration: Duration,
    /// How it ended.
    pub close: &'a Close,
    /// Whole messages from the client.
    pub messages_in: u64,
    /// Whole messages to the client.
    pub messages_out: u64,
    /// Payload bytes from the client; of rooms and echo before compression, of a relay as on the wire.
    pub bytes_in: u64,
    /// Payload bytes to the client, counted likewise.
    pub bytes_out: u64,
}

/// Logs the end of a session: one line at level info, target `wsgate::session`.
pub fn session_ended(ended: &Ended<'_>) {
    // Names and reasons come from peers. Recorded as `&str`, without `%`, they are quoted and
    // escaped by the text format and are JSON strings in the other: no peer writes a line of its own.
    tracing::info!(
        target: "wsgate::session",
        route = ended.route,
        client = ended.client,
        peer = ended.peer.to_string().as_str(),
        duration_ms = ended.duration.as_millis() as u64,
        code = ended.close.number,
        by = ended.close.by.label(),
        reason = ended.close.reason.as_str(),
        messages_in = ended.messages_in,
        messages_out = ended.messages_out,
        bytes_in = ended.bytes_in,
        bytes_out = ended.bytes_out,
        "session ended"
    );
}

#[cfg(test)]
mod tests;
