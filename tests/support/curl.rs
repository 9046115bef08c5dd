//! curl, as users try things out with it.
use super::{Gateway, within};
use std::process::Stdio;
use tokio::process::Command;

/// curl with these arguments: no file of the user's, no proxy, quiet but for errors, and no CA but the gateway's.
pub fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-q", "--noproxy", "*", "-sS", "--cacert", "certs/fullchain.pem"]).args(arguments);
    command.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", gateway.port(0)));
    command.current_dir(gateway.folder.path()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What curl wrote to standard output; it has to end well.
pub async fn curl(gateway: &Gateway, arguments: &[&str]) -> String {
    String::from_utf8(bytes(gateway, arguments).await).unwrap()
}

/// The same, as it came.
pub async fn bytes(gateway: &Gateway, arguments: &[&str]) -> Vec<u8> {
    let output = within(command(gateway, arguments).output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {}: {errors}", output.status);
    output.stdout
}
