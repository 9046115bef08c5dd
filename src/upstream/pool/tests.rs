#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{Backend, HealthCheck, Upstream};
use crate::upstream::handshake::tests::forward;
use crate::upstream::server::Why;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

fn backend(number: u16, weight: u32) -> Backend {
    let transport = Transport::Tcp { host: "127.0.0.1".into(), port: number };
    Backend { url: format!("http://127.0.0.1:{number}"), transport, weight }
}

/// Servers 1, 2, … with these weights.
fn configured(balance: Balance, retries: u32, weights: &[u32]) -> Upstream {
    let servers = (1..).zip(weights).map(|(number, weight)| backend(number, *weight)).collect();
    Upstream { balance, retries, ..Upstream::new("live", servers) }
}

fn upstreams(balance: Balance, retries: u32, weights: &[u32]) -> Arc<Upstreams> {
    Upstreams::new(&[Arc::new(configured(balance, retries, weights))])
}

fn client(name: &str) -> Affinity<'_> {
    Affinity { client: Some(name), ip: None }
}

fn candidates(upstreams: &Upstreams, affinity: Affinity<'_>) -> Vec<Arc<Server>> {
    upstreams.candidates(0, affinity).collect()
}

fn number(server: &Server) -> u16 {
    match &server.configured.transport {
        Transport::Tcp { port, .. } => *port,
        _ => 0,
    }
}

fn numbers(upstreams: &Upstreams) -> Vec<u16> {
    candidates(upstreams, client("alice")).iter().map(|server| number(server)).collect()
}

/// How often each server comes first.
fn firsts(upstreams: &Upstreams, times: usize) -> BTreeMap<u16, usize> {
    let mut count = BTreeMap::new();
    (0..times).for_each(|_| *count.entry(numbers(upstreams)[0]).or_default() += 1);
    count
}

fn server(upstreams: &Upstreams, wanted: u16) -> Arc<Server> {
    let listed = upstreams.pools[0].listed();
    listed.servers.iter().find(|server| number(server) == wanted).unwrap().clone()
}

/// Checks say so until it counts.
fn find(server: &Server, well: bool) {
    let outcome = if well { Ok(()) } else { Err("a test".to_owned()) };
    while server.checked(&outcome) != Some(well) {}
}

fn fail(server: &Server) {
    server.unreachable(&Why::Late);
}

#[test]
fn as_many_others_are_tried_as_retries_says() {
    assert_eq!(numbers(&upstreams(Balance::RoundRobin, 0, &[1, 1, 1])), [1]);
    assert_eq!(numbers(&upstreams(Balance::RoundRobin, 1, &[1, 1, 1])), [1, 2]);
    assert_eq!(numbers(&upstreams(Balance::RoundRobin, 9, &[1, 1, 1])), [1, 2, 3]);
}

#[test]
fn weights_count() {
    let upstreams = upstreams(Balance::RoundRobin, 0, &[3, 1]);
    assert_eq!(firsts(&upstreams, 40), BTreeMap::from([(1, 30), (2, 10)]));
}

#[test]
fn leases_and_connections_that_are_made_count_for_the_least_used() {
    let upstreams = upstreams(Balance::LeastConnections, 0, &[1, 1]);
    let leases = [Lease::new(server(&upstreams, 1)), Lease::new(server(&upstreams, 1))];
    assert_eq!(firsts(&upstreams, 10), BTreeMap::from([(2, 10)]));
    drop(leases);
    let _one = Lease::new(server(&upstreams, 2));
    assert_eq!(firsts(&upstreams, 10), BTreeMap::from([(1, 10)]));
}

#[tokio::test]
async fn a_connection_that_is_being_made_counts() {
    // The name is never found, as nobody looks it up: the dial goes on.
    let named = Backend { transport: Transport::Tcp { host: "name.test".into(), port: 80 }, ..backend(1, 1) };
    let servers = vec![named, backend(2, 1)];
    let configured = Upstream { balance: Balance::LeastConnections, retries: 0, ..Upstream::new("live", servers) };
    let upstreams = Upstreams::new(&[Arc::new(configured)]);
    let first = candidates(&upstreams, client("alice")).remove(0);
    let mut dial = std::pin::pin!(first.dial(None));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(dial.as_mut().poll(cx).is_pending())).await);
    assert_eq!((number(&first), firsts(&upstreams, 4)), (80, BTreeMap::from([(2, 4)])));
}

#[test]
fn a_client_stays_with_its_server_by_its_name_or_its_address() {
    let ip = |last| Some(IpAddr::from([10, 0, 0, last]));
    let by = |balance| {
        let upstreams = upstreams(balance, 0, &[1; 8]);
        move |client, ip| number(&candidates(&upstreams, Affinity { client, ip })[0])
    };
    let (by_client, by_ip) = (by(Balance::HashClient), by(Balance::HashIp));
    let clients: Vec<String> = (0..40).map(|n| format!("client-{n}")).collect();
    let spread = |servers: Vec<u16>| servers.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(spread(clients.iter().map(|name| by_client(Some(name), ip(1))).collect()) > 4);
    assert!(spread((0..40).map(|n| by_client(None, ip(n))).collect()) > 4);
    assert_eq!(spread(clients.iter().map(|name| by_ip(Some(name), ip(1))).collect()), 1);
    assert!(spread((0..40).map(|n| by_ip(Some("alice"), ip(n))).collect()) > 4);
    for n in 0..40 {
        assert_eq!(by_client(Some("alice"), ip(n)), by_client(Some("alice"), None));
        let mapped = Ipv4Addr::new(10, 0, 0, n).to_ipv6_mapped();
        assert_eq!(by_ip(None, ip(n)), by_ip(None, Some(mapped.into())), "the same address");
    }
    assert!(spread((0..40).map(|_| by_ip(Some("alice"), None)).collect()) > 1, "without an address chance chooses");
}

#[test]
fn only_the_keys_of_an_unhealthy_server_move() {
    let upstreams = upstreams(Balance::HashClient, 0, &[1, 1, 1, 1]);
    let names: Vec<String> = (0..400).map(|n| format!("client-{n}")).collect();
    let places = || names.iter().map(|name| number(&candidates(&upstreams, client(name))[0])).collect::<Vec<_>>();
    let before = places();
    find(&server(&upstreams, 3), false);
    let after = places();
    assert!(!after.contains(&3) && before.contains(&3));
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 3));
    let mut slow = configured(Balance::HashClient, 0, &[1, 1, 1, 1]);
    slow.slow_start = Duration::ZERO;
    upstreams.reload(&[Arc::new(slow)]);
    find(&server(&upstreams, 3), true);
    assert_eq!(places(), before);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_server_is_tried_last_and_an_unhealthy_one_never() {
    let upstreams = upstreams(Balance::RoundRobin, 9, &[1, 1, 1]);
    let [one, two, three] = [1, 2, 3].map(|n| server(&upstreams, n));
    fail(&one);
    assert_eq!(numbers(&upstreams), [2, 3, 1]);
    find(&two, false);
    assert_eq!(numbers(&upstreams), [3, 1]);
    fail(&three);
    assert_eq!(numbers(&upstreams).len(), 2, "better than nothing");
    find(&one, false);
    find(&three, false);
    assert_eq!(numbers(&upstreams), [0; 0]);
    let refused = upstreams.open(0, forward(&HeaderMap::new())).await.unwrap_err();
    assert!(
        matches!(refused, Unopened::Unavailable(Unavailable { status: StatusCode::SERVICE_UNAVAILABLE, .. })),
        "{refused:?}"
    );
    find(&two, true);
    assert_eq!(numbers(&upstreams), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_gets_its_share_over_the_slow_start() {
    let upstreams = upstreams(Balance::RoundRobin, 0, &[1, 1]);
    fail(&server(&upstreams, 1));
    assert_eq!(firsts(&upstreams, 100), BTreeMap::from([(2, 100)]));
    server(&upstreams, 1).connected();
    assert_eq!(firsts(&upstreams, 100).get(&1), None);
    advance(5 * SECOND).await;
    let half = firsts(&upstreams, 300)[&1];
    assert!((95..=105).contains(&half), "{half} of 300");
    advance(5 * SECOND).await;
    let whole = firsts(&upstreams, 300)[&1];
    assert!((148..=152).contains(&whole), "{whole} of 300");
}

#[tokio::test]
async fn what_is_the_gateway_s_own_want_ejects_nobody() {
    let upstreams = upstreams(Balance::RoundRobin, 9, &[1, 1]);
    let one = server(&upstreams, 1);
    for error in [std::io::Error::from_raw_os_error(24), std::io::ErrorKind::AddrNotAvailable.into()] {
        one.unreachable(&Why::Failed(error));
        assert_eq!(one.standing(Instant::now()).0, Standing::Ready);
    }
    one.unreachable(&Why::Failed(std::io::ErrorKind::ConnectionRefused.into()));
    assert_eq!(one.standing(Instant::now()).0, Standing::Ejected);
    let level = &upstreams.server_levels()[0];
    assert_eq!((level.connect_failures, level.ejections, level.healthy), (3, 1, false));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_is_known_of_servers_and_their_sessions() {
    let upstreams = upstreams(Balance::RoundRobin, 9, &[1, 1]);
    let (one, two) = (server(&upstreams, 1), server(&upstreams, 2));
    let leases = [Lease::new(one.clone()), Lease::new(two.clone())];
    find(&two, false);
    let unchanged = Arc::new(configured(Balance::RoundRobin, 9, &[1, 1]));
    assert!(upstreams.reload(&[unchanged]).is_empty());
    assert!(Arc::ptr_eq(&server(&upstreams, 1), &one), "nothing has changed");
    // Server 1 goes, 3 comes, 2 has another weight.
    let servers = vec![backend(3, 1), backend(2, 7)];
    let health = HealthCheck { rise: 1, ..one.upstream.health.clone() };
    let changed = Upstream { retries: 9, health, ..Upstream::new("live", servers) };
    upstreams.reload(&[Arc::new(changed), Arc::new(Upstream::new("other", vec![]))]);
    assert_eq!(numbers(&upstreams), [3]);
    let again = server(&upstreams, 2);
    assert_eq!((again.number(), again.used(), again.configured.weight), (two.number(), 1, 7));
    assert_eq!(again.checked(&Ok(())), Some(true), "it was unhealthy, and rises by the new configuration");
    advance(10 * SECOND).await;
    assert_eq!(firsts(&upstreams, 80), BTreeMap::from([(2, 70), (3, 10)]));
    assert_eq!(one.used(), 1, "its session stays");
    drop(leases);
    assert_eq!((again.used(), one.used()), (0, 0));
    // Nothing is said of it any more.
    upstreams.reload(&[]);
    assert_eq!(numbers(&upstreams).len(), 2);
}

#[test]
fn a_reload_that_fails_leaves_an_upstream_as_it_was() {
    let upstreams = upstreams(Balance::RoundRobin, 9, &[1, 1]);
    let transport = Transport::Tls { host: "a.test".into(), port: 443 };
    let servers = vec![Backend { url: "https://a.test".into(), transport, weight: 1 }];
    let mut broken = Upstream::new("live", servers);
    broken.tls.ca = Some("/no/such/file".into());
    let faults = upstreams.reload(&[Arc::new(broken)]);
    assert!(faults[0].to_string().contains("/no/such/file"), "{faults:?}");
    assert_eq!(numbers(&upstreams), [1, 2]);
}
