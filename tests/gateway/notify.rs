//! What systemd is told, at a socket that stands for it.
use crate::support::gateway::Setup;
use crate::support::*;
use std::time::Duration;
use tokio::net::UnixDatagram;

/// The next message that is no answer to the watchdog.
async fn heard(systemd: &UnixDatagram) -> String {
    loop {
        let message = any(systemd).await;
        if message != "WATCHDOG=1\n" {
            return message;
        }
    }
}

async fn any(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = within(systemd.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn ready_watchdog_reload_and_stop_are_told() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let period = Duration::from_secs(1);
    let setup = Setup::new()
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .environment("WATCHDOG_USEC", &period.as_micros().to_string());
    let mut gateway = setup.start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    assert!(heard(&systemd).await.starts_with("READY=1\n"), "READY comes first");
    while any(&systemd).await != "WATCHDOG=1\n" {}
    gateway.open("/echo").await.close(1000, "").await;
    gateway.signal("HUP");
    assert!(heard(&systemd).await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(heard(&systemd).await.starts_with("READY=1\n"));
    gateway.signal("TERM");
    assert!(heard(&systemd).await.starts_with("STOPPING=1\n"));
    assert!(gateway.exit().await.success());
}

/// Nobody writes into the pipe that the secret has become: the reload never ends, and holds up no stop.
#[tokio::test]
async fn a_reload_that_hangs_does_not_hold_up_the_end() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let setup = Setup::new().environment("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut gateway = setup.start(&format!("{PLAIN}{SECRET_AUTH}{ECHO}")).await;
    assert!(heard(&systemd).await.starts_with("READY=1\n"));
    let secret = gateway.folder.path().join("jwt-secret");
    std::fs::remove_file(&secret).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&secret).status().unwrap().success());
    gateway.signal("HUP");
    assert!(heard(&systemd).await.starts_with("RELOADING=1\n"));
    assert!(gateway.stop().await.success());
    assert!(heard(&systemd).await.starts_with("STOPPING=1\n"));
}
