use super::*;
use crate::close::Code;
use std::collections::{BTreeMap, BTreeSet};

/// A small reader of the text format: series with their values. Fails on anything else.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut family: Option<(String, String)> = None;
    let mut families = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && families.insert(name.to_owned()), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let (key, value) = line.rsplit_once(' ').expect("a value");
        let name = key.split('{').next().unwrap_or(key);
        let (family, kind) = family.as_ref().expect("a TYPE before its series");
        match name.strip_prefix(family.as_str()).expect("series of the family above") {
            "" => assert_ne!(kind, "histogram"),
            "_bucket" | "_sum" | "_count" => assert_eq!(kind, "histogram"),
            other => panic!("{other} in {line}"),
        }
        if let Some(labels) = key.strip_prefix(name).filter(|l| !l.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).expect("braces");
            for label in labels.split(',') {
                let (_, value) = label.split_once('=').expect("a label");
                assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        let value = value.parse().expect("a number");
        assert!(found.insert(key.to_owned(), value).is_none(), "twice: {line}");
    }
    found
}

#[test]
fn every_series_is_there_from_the_start_at_zero() {
    let found = series(&Metrics::new(3).encode());
    let mut expected = Vec::new();
    for outcome in Handshake::ALL {
        expected.push(format!(r#"wsgate_handshakes_total{{outcome="{}"}}"#, outcome.label()));
    }
    for reason in Refused::ALL {
        expected.push(format!(r#"wsgate_refusals_total{{reason="{}"}}"#, reason.label()));
    }
    for service in ServiceLabel::ALL.iter().map(|s| s.label()) {
        expected.push(format!(r#"wsgate_sessions{{service="{service}"}}"#));
        for direction in ["in", "out"] {
            for name in ["messages", "bytes"] {
                let series = format!(r#"wsgate_{name}_total{{service="{service}",direction="{direction}"}}"#);
                expected.push(series);
            }
        }
        for by in ["client", "gateway", "upstream"] {
            for code in Code::ALL.iter().map(|c| c.label()).chain(["peer", "no_code", "lost"]) {
                expected.push(format!(r#"wsgate_closes_total{{service="{service}",by="{by}",code="{code}"}}"#));
            }
        }
    }
    for event in ["connect", "join", "publish"] {
        for outcome in ["allowed", "changed", "refused", "failed"] {
            expected.push(format!(r#"wsgate_hook_asked_total{{event="{event}",outcome="{outcome}"}}"#));
        }
    }
    for outcome in ["delivered", "given_up", "dropped"] {
        expected.push(format!(r#"wsgate_hook_told_total{{outcome="{outcome}"}}"#));
    }
    for name in ["connections", "rooms", "room_members", "deliveries_total", "backlog_bytes", "hook_waiting"] {
        expected.push(format!("wsgate_{name}"));
    }
    for name in ["session_panics_total", "accept_pauses_total", "loop_lag_seconds_count"] {
        expected.push(format!("wsgate_{name}"));
    }
    for name in &expected {
        assert_eq!(found.get(name), Some(&0.0), "{name}");
    }
    let more: Vec<_> = found.iter().filter(|(k, v)| **v != 0.0 && k.starts_with("wsgate_")).collect();
    assert_eq!(more.len(), 2, "only the start time and the build: {more:?}");
    assert_eq!(found[&format!(r#"wsgate_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"))], 1.0);
    assert!(found["wsgate_start_time_seconds"] > 1.7e9);
}

#[test]
fn a_scrape_adds_the_shards_up() {
    let metrics = Metrics::new(2);
    for shard in [metrics.shard(0), metrics.shard(1), metrics.elsewhere()] {
        shard.connection_opened();
        shard.handshake(Handshake::Accepted);
        shard.refused(Refused::Origin);
        shard.session_opened(ServiceLabel::Rooms);
        shard.messages(ServiceLabel::Rooms, Direction::In, 5);
        shard.bytes(ServiceLabel::Proxy, Direction::Out, 1 << 40);
        shard.delivered(7);
        shard.loop_lag(Duration::from_millis(2));
    }
    metrics.shard(1).backlog_grew(10);
    // Opened on one thread, closed on another.
    metrics.shard(0).connection_closed();
    metrics.shard(0).connection_closed();
    metrics.shard(0).backlog_shrank(4);
    let found = series(&metrics.encode());
    assert_eq!(found["wsgate_connections"], 1.0);
    assert_eq!(found["wsgate_backlog_bytes"], 6.0);
    assert_eq!(found[r#"wsgate_handshakes_total{outcome="accepted"}"#], 3.0);
    assert_eq!(found[r#"wsgate_refusals_total{reason="origin"}"#], 3.0);
    assert_eq!(found[r#"wsgate_sessions{service="rooms"}"#], 3.0);
    assert_eq!(found[r#"wsgate_messages_total{service="rooms",direction="in"}"#], 15.0);
    assert_eq!(found[r#"wsgate_bytes_total{service="proxy",direction="out"}"#], 3.0 * (1u64 << 40) as f64);
    assert_eq!(found["wsgate_deliveries_total"], 21.0);
    assert_eq!(found[r#"wsgate_loop_lag_seconds_bucket{le="0.001"}"#], 0.0);
    assert_eq!(found[r#"wsgate_loop_lag_seconds_bucket{le="0.003"}"#], 3.0);
    assert_eq!(found[r#"wsgate_loop_lag_seconds_bucket{le="+Inf"}"#], 3.0);
    assert_eq!(found["wsgate_loop_lag_seconds_sum"], 0.006);
}

#[test]
fn a_level_never_reads_below_zero() {
    let metrics = Metrics::new(1);
    metrics.shard(0).connection_closed();
    assert_eq!(series(&metrics.encode())["wsgate_connections"], 0.0);
}

#[test]
fn a_peer_cannot_make_a_series() {
    let metrics = Metrics::new(1);
    let closes = [
        (By::Gateway, Close::gateway(Code::TooLarge), "too_large"),
        (By::Client, Close::from_peer(By::Client, Some(4005), "mine"), "too_large"),
        (By::Client, Close::from_peer(By::Client, Some(4999), "\"}\n"), "peer"),
        (By::Upstream, Close::from_peer(By::Upstream, None, ""), "no_code"),
        (By::Client, Close::lost(By::Client, "reset"), "lost"),
    ];
    let before = series(&metrics.encode()).len();
    for (by, close, code) in closes {
        metrics.shard(0).closed(ServiceLabel::Echo, by, &close);
        let name = format!(r#"wsgate_closes_total{{service="echo",by="{}",code="{code}"}}"#, by.label());
        assert_eq!(series(&metrics.encode())[&name], 1.0, "{name}");
    }
    assert_eq!(series(&metrics.encode()).len(), before);
}

#[test]
fn blocks_share_no_cache_line() {
    assert_eq!(align_of::<ShardMetrics>(), 128);
    assert_eq!(size_of::<ShardMetrics>() % 128, 0);
}
