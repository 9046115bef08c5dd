//! nginx, as Debian has it.
use super::backend::unused_port;
use super::{Folder, eventually, skip};
use std::process::{Child, Command, Stdio};
use tokio::net::TcpStream;

/// nginx in one process, in a folder of its own.
pub struct Nginx {
    pub port: u16,
    child: Child,
    _folder: Folder,
}

impl Nginx {
    /// `http` makes what stands in `http { … }`, of the port to listen on at 127.0.0.1; `files` are beside it. `None`
    /// (and a plain line) where there is no nginx.
    pub async fn start(http: impl FnOnce(u16) -> String, files: &[(&str, &[u8])]) -> Option<Nginx> {
        let found = |program: &&str| Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok();
        let Some(program) = ["nginx", "/usr/sbin/nginx"].into_iter().find(found) else {
            skip("there is no nginx; tests/run installs it on Debian");
            return None;
        };
        let folder = Folder::new();
        let port = unused_port().await;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|t| format!("{t}_temp_path {t};\n"));
        for (name, content) in files {
            folder.write(name, content);
        }
        let http = format!("access_log off;\n{}{}", temporary.concat(), http(port));
        let main = "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {}\n";
        folder.write("nginx.conf", format!("{main}http {{\n{http}}}\n"));
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(folder.path());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let nginx = Nginx { port, child, _folder: folder };
        eventually(|| async { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
