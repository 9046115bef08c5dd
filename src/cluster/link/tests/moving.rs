//! A Redis Cluster whose slots move, and whose masters die.
use super::server::eventually;
use super::*;
use std::collections::VecDeque;

/// Two of one slot.
const KEYS: [&[u8]; 2] = [b"{r}a", b"{r}b"];

/// Masters of a cluster, over which the slots are spread, and then its replicas.
pub(crate) async fn cluster(masters: usize, replicas: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..masters + replicas {
        servers.push(Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await);
    }
    let addresses: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().take(masters).map(String::as_str));
    words.push("--cluster-yes");
    let made = servers[0].cli(&words).await;
    assert!(made.contains("All 16384 slots covered"), "{made}");
    let master = servers[0].cli(&["CLUSTER", "MYID"]).await;
    for address in &addresses[masters..] {
        let words =
            ["--cluster", "add-node", address, &addresses[0], "--cluster-slave", "--cluster-master-id", &master];
        let added = servers[0].cli(&words).await;
        assert!(added.contains("New node added correctly"), "{added}");
    }
    for server in &servers {
        let well = async || server.cli(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok");
        eventually("the cluster is up", well).await;
    }
    servers
}

/// Up to this key's slot.
async fn up_to(link: &mut Link, key: &[u8]) {
    let slot = slot_of(key);
    until(link, |report| matches!(report, Report::Up(slots) if slots.contains(slot)).then_some(())).await;
}

pub(crate) async fn owner_of(servers: &[Server], slot: u16) -> &Server {
    for server in servers {
        let nodes = server.cli(&["CLUSTER", "NODES"]).await;
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap().to_owned();
        let has = own.split(' ').skip(8).filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
        });
        if own.contains("master") && has.into_iter().any(|(first, last)| (first..=last).contains(&slot)) {
            return server;
        }
    }
    panic!("nobody has slot {slot}");
}

/// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
pub(crate) async fn move_slot(from: &Server, to: &Server, slot: u16, others: &[Server]) {
    let slot = slot.to_string();
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]).await, to.cli(&["CLUSTER", "MYID"]).await);
    assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await, "OK");
    assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await, "OK");
    loop {
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
        let Some(key) = keys.lines().next().filter(|key| !key.is_empty()) else { break };
        let moved = from.cli(&["MIGRATE", "127.0.0.1", &to.port.to_string(), key, "0", "5000"]).await;
        assert_eq!(moved, "OK");
    }
    for server in [to, from].into_iter().chain(others) {
        let set = server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        assert!(set == "OK" || set.starts_with("ERR"), "{set}");
    }
}

#[tokio::test]
async fn calls_of_a_slot_that_moves_are_carried_out_once_and_in_order() {
    if !has_redis() {
        return;
    }
    let servers = cluster(3, 0).await;
    let (mut link, _metrics) = link(&config(&[&servers[0]]));
    let slot = slot_of(b"{r}");
    up_to(&mut link, b"{r}").await;
    let moving = async {
        // To and fro: in the end it lies elsewhere than at first, however many moves have passed unseen.
        for _ in 0..5 {
            let from = owner_of(&servers, slot).await;
            let to = servers.iter().find(|server| server.port != from.port).unwrap();
            move_slot(from, to, slot, &servers).await;
        }
    };
    let mut moving = std::pin::pin!(moving);
    // Of each key, what was sent and not answered.
    let mut waiting = [VecDeque::new(), VecDeque::new()];
    let (mut counts, mut sent, mut moved, mut ups) = ([0, 0], 0u64, false, 0);
    while !moved || waiting.iter().any(|tickets| !tickets.is_empty()) {
        while !moved && waiting[0].len() + waiting[1].len() < 64 {
            let which = usize::from(sent.is_multiple_of(3));
            link.call(sent, Call::script(&TELL, &[KEYS[which]], &[sent.to_string().as_bytes()]));
            waiting[which].push_back(sent);
            sent += 1;
        }
        tokio::select! {
            () = &mut moving, if !moved => moved = true,
            report = next(&mut link) => match report {
                Report::Answered { ticket, answer } => {
                    let which = usize::from(ticket.is_multiple_of(3));
                    counts[which] += 1;
                    assert_eq!((Some(ticket), answer), (waiting[which].pop_front(), Ok(Reply::Int(counts[which]))));
                }
                Report::Up(slots) => ups += usize::from(slots.contains(slot)),
                other => panic!("{other:?}"),
            },
        }
    }
    link.call(sent, Call::command(b"{r}a", &[b"LRANGE", b"{r}a", b"0", b"-1"]));
    // The last calls may have been carried out before the last move: this one is not.
    let listed = until(&mut link, |report| match report {
        Report::Answered { answer, .. } => Some(answer.unwrap()),
        Report::Up(slots) => {
            ups += usize::from(slots.contains(slot));
            None
        }
        other => panic!("{other:?}"),
    })
    .await;
    assert!(ups >= 1 && sent > 64, "{ups} moves were seen, {sent} calls made");
    let listed: Vec<i64> = listed.list().unwrap().iter().map(|item| item.int().unwrap()).collect();
    let wanted: Vec<i64> = (0..sent as i64).filter(|n| n % 3 != 0).collect();
    assert_eq!(listed, wanted);
}

#[tokio::test]
async fn a_slot_that_moves_while_nothing_is_called_is_subscribed_anew() {
    if !has_redis() {
        return;
    }
    let servers = cluster(3, 0).await;
    let (mut link, _metrics) = link(&config(&[&servers[1]]));
    up_to(&mut link, b"{r}").await;
    link.subscribe(b"{r}a");
    link.call(1, Call::script(&TELL, &[b"{r}a"], &[b"first"]));
    until(&mut link, |report| matches!(report, Report::Pushed { .. }).then_some(())).await;
    let from = owner_of(&servers, slot_of(b"{r}")).await;
    let to = servers.iter().find(|server| server.port != from.port).unwrap();
    let moving = move_slot(from, to, slot_of(b"{r}"), &servers);
    tokio::join!(moving, up_to(&mut link, b"{r}"));
    // What was learned first may be what was so before: then it is learned again.
    loop {
        link.subscribe(b"{r}a");
        link.call(2, Call::script(&TELL, &[b"{r}a"], &[b"second"]));
        let pushed = until(&mut link, |report| match report {
            Report::Pushed { payload, .. } => Some(payload == "second"),
            Report::Up(_) => Some(false),
            Report::Answered { .. } | Report::Down(_) => None,
        });
        if pushed.await {
            break;
        }
    }
}

#[tokio::test]
async fn a_replica_takes_the_place_of_a_master_that_dies() {
    if !has_redis() {
        return;
    }
    let mut servers = cluster(3, 1).await;
    let first = &servers[0];
    let slots_of_first = first.cli(&["CLUSTER", "SLOTS"]).await;
    let key = (0..).map(|n| format!("k{n}")).find(|key| slot_of(key.as_bytes()) < 5000).unwrap();
    let other = (0..).map(|n| format!("k{n}")).find(|key| slot_of(key.as_bytes()) > 12_000).unwrap();
    let copied = async || first.cli(&["INFO", "replication"]).await.contains("state=online");
    eventually("the replica is linked", copied).await;
    let (mut link, _metrics) = link(&config(&[&servers[0], &servers[1]]));
    let mut reached = 0;
    while reached < 3 {
        up(&mut link).await;
        reached += 1;
    }
    link.call(1, count(&key));
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Int(1)), "{slots_of_first}");
    assert_eq!(servers[0].cli(&["WAIT", "1", "5000"]).await, "1");

    servers[0].kill().await;
    let lost = down(&mut link).await;
    assert!(lost.contains(slot_of(key.as_bytes())) && !lost.contains(slot_of(other.as_bytes())), "{lost:?}");
    link.call(2, count(&key));
    link.call(3, count(&other));
    assert_eq!(answer(&mut link, 2).await, Err(Trouble::Away));
    assert_eq!(answer(&mut link, 3).await, Ok(Reply::Int(1)));
    up_to(&mut link, key.as_bytes()).await;
    link.call(4, count(&key));
    assert_eq!(answer(&mut link, 4).await, Ok(Reply::Int(2)));
}
