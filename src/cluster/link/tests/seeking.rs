//! Which server is used: users, TLS, replicas, Sentinels.
use super::server::eventually;
use super::*;
use crate::config::secret::Secret;
use crate::tls::generate::generate;

fn secure(config: &mut config::Cluster, user: &str, password: &str) {
    config.user = Some(user.into());
    config.password = Some(Secret::new(password));
}

#[tokio::test]
async fn a_user_with_its_password_is_let_in() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&["--requirepass", "master-key"]).await;
    let admin = ["-a", "master-key", "--no-auth-warning"];
    // What the link itself and the scripts here need.
    let rules = "ACL SETUSER gate on >pass-word ~t:* &t:* +@read +@write +@scripting +@pubsub -@dangerous +ping +time \
                 +client|setname +cluster|info +cluster|slots";
    let rules: Vec<&str> = rules.split_whitespace().collect();
    let reply = server.cli(&[&admin, &rules[..]].concat()).await;
    assert_eq!(reply, "OK");

    let mut nobody = link(&config(&[&server])).0;
    let why = fault(&mut nobody, "NOAUTH").await;
    assert!(!why.contains("pass-word"), "{why}");

    let mut wrong = config(&[&server]);
    secure(&mut wrong, "gate", "wrong-word");
    let why = fault(&mut link(&wrong).0, "WRONGPASS").await;
    assert!(!why.contains("wrong-word"), "{why}");

    let mut right = config(&[&server]);
    secure(&mut right, "gate", "pass-word");
    let mut right = link(&right).0;
    up(&mut right).await;
    right.call(1, count("t:k"));
    assert_eq!(answer(&mut right, 1).await, Ok(Reply::Int(1)));
    right.subscribe(b"t:c");
    right.call(3, Call::script(&TELL, &[b"t:c"], &[b"hello"]));
    until(&mut right, |report| matches!(report, Report::Pushed { .. }).then_some(())).await;
    let names = server.cli(&[&admin, &["CLIENT", "LIST"][..]].concat()).await;
    assert!(names.contains("name=wsgate-test "), "{names}");
    right.call(2, count("other"));
    let refused = answer(&mut right, 2).await;
    assert!(matches!(&refused, Err(Trouble::Refused(error)) if error.starts_with("NOPERM")), "{refused:?}");
    // A room whose channel may not be subscribed would be silent: that is no connection to be used.
    right.subscribe(b"other");
    down(&mut right).await;

    // A name is no need.
    assert_eq!(server.cli(&[&admin, &["ACL", "SETUSER", "gate", "-client"][..]].concat()).await, "OK");
    up(&mut right).await;

    let mut default = config(&[&server]);
    default.password = Some(Secret::new("master-key"));
    up(&mut link(&default).0).await;
}

#[tokio::test]
async fn tls_is_spoken_to_a_server_of_the_authority_alone() {
    if !has_redis() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("wsgate-redis-tls-{}", uuid::Uuid::new_v4()));
    let pair = |name: &str| {
        let certificate = folder.join(format!("{name}.pem"));
        let pair = config::Certificate { private_key: folder.join(format!("{name}.key")), certificate, generate: true };
        generate(&pair).unwrap();
        (pair.certificate, pair.private_key.display().to_string())
    };
    let ((certificate, key), (other, _)) = (pair("server"), pair("other"));
    let port = server::free_port();
    let path = certificate.display().to_string();
    let files = ["--tls-cert-file", &path, "--tls-key-file", &key, "--tls-ca-cert-file", &path];
    let port_text = port.to_string();
    let args = [&["--tls-port", &port_text, "--tls-auth-clients", "no"], &files[..]].concat();
    let _server = Server::start(&args).await;

    let mut trusting = config(&[]);
    trusting.servers.push(config::RedisServer { host: "127.0.0.1".into(), port });
    trusting.tls = true;
    trusting.ca = Some(certificate);
    let mut trusted = link(&trusting).0;
    up(&mut trusted).await;
    // More than the socket takes at once.
    let large = vec![b'x'; 3 << 20];
    trusted.call(1, Call::command(b"k", &[b"SET", b"k", &large]));
    assert_eq!(answer(&mut trusted, 1).await, Ok(Reply::Text("OK".into())));
    trusted.call(2, Call::command(b"k", &[b"GET", b"k"]));
    assert_eq!(answer(&mut trusted, 2).await, Ok(Reply::Text(large.into())));

    trusting.ca = Some(other);
    fault(&mut link(&trusting).0, "invalid peer certificate").await;
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_replica_that_is_promoted_by_hand_is_used() {
    if !has_redis() {
        return;
    }
    let first = Server::start(&[]).await;
    let second = Server::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]).await;
    let linked = async || second.cli(&["INFO", "replication"]).await.contains("master_link_status:up");
    eventually("the replica is linked", linked).await;
    let (mut link, _metrics) = link(&config(&[&second, &first]));
    up(&mut link).await;
    link.call(1, count("k"));
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Int(1)));
    let copied = async || second.cli(&["GET", "k"]).await == "1";
    eventually("the count is copied", copied).await;

    assert_eq!(second.cli(&["REPLICAOF", "NO", "ONE"]).await, "OK");
    assert_eq!(first.cli(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]).await, "OK");
    // The first says that it is read-only now: that was not carried out, and ends the connection.
    link.call(2, count("k"));
    assert_eq!(answer(&mut link, 2).await, Err(Trouble::Away));
    down(&mut link).await;
    up(&mut link).await;
    link.call(3, count("k"));
    assert_eq!(answer(&mut link, 3).await, Ok(Reply::Int(2)));
    assert_eq!(second.cli(&["GET", "k"]).await, "2");
}

#[tokio::test]
async fn the_master_that_sentinels_name_is_used() {
    if !has_redis() {
        return;
    }
    let mut first = Server::start(&[]).await;
    let second = Server::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]).await;
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 5000\n",
        first.port
    );
    let sentinel = Server::sentinel(&settings).await;
    let known = async || sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).await.contains("master-link-status\nok");
    eventually("the Sentinel knows the replica", known).await;

    let mut named = config(&[&sentinel]);
    named.sentinel_master = Some("main".into());
    let (mut link, _metrics) = link(&named);
    up(&mut link).await;
    link.call(1, count("k"));
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Int(1)));
    let copied = async || second.cli(&["GET", "k"]).await == "1";
    eventually("the count is copied", copied).await;

    first.kill().await;
    down(&mut link).await;
    up(&mut link).await;
    link.call(2, count("k"));
    assert_eq!(answer(&mut link, 2).await, Ok(Reply::Int(2)));
    assert_eq!(second.cli(&["GET", "k"]).await, "2");

    // The Sentinel has no users, the master has; without a user it would let everybody in.
    assert_eq!(second.cli(&["ACL", "SETUSER", "gate", "on", ">pass-word", "~*", "&*", "+@all"]).await, "OK");
    secure(&mut named, "gate", "wrong-word");
    fault(&mut super::link(&named).0, "WRONGPASS").await;
    secure(&mut named, "gate", "pass-word");
    up(&mut super::link(&named).0).await;
    (named.user, named.password) = (None, None);

    named.sentinel_master = Some("other".into());
    fault(&mut super::link(&named).0, "no master of this name").await;
    named.sentinel_master = None;
    fault(&mut super::link(&named).0, "names no master").await;
    let mut direct = config(&[&second]);
    direct.sentinel_master = Some("main".into());
    fault(&mut super::link(&direct).0, "it is no Sentinel").await;
}
