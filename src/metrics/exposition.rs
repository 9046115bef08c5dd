//! The families, their names and their help, summed over the blocks.
use super::labels::{
    self, Asked, AskedOutcome, Direction, Fetched, Handshake, PlacesLost, RedisCall, Refused, ServiceLabel,
    StatusClass, ToldOutcome,
};
use super::{Blocks, Gauge, LAG_BOUNDS, ServerLevels, ShardMetrics, process::Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt::Result;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

impl Collector for Blocks {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result {
        let out = &mut encoder;
        self.traffic(out)?;
        self.handshakes(out)?;
        self.closes(out)?;
        self.rooms(out)?;
        self.broker(out)?;
        self.hook(out)?;
        self.jwks(out)?;
        self.redis(out)?;
        self.servers(out)?;
        self.cluster(out)?;
        self.shards(out)?;
        self.about(out)?;
        process(out)
    }
}

impl Blocks {
    fn sum(&self, counter: impl Fn(&ShardMetrics) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|block| counter(block).load(Relaxed)).sum()
    }

    /// The blocks are read one after another while they change, so a sum may be short of 0 for once.
    pub(super) fn level(&self, gauge: impl Fn(&ShardMetrics) -> &Gauge) -> i64 {
        let sum = self.shards.iter().fold(0u64, |sum, block| sum.wrapping_add(gauge(block).0.load(Relaxed)));
        sum.cast_signed().max(0)
    }

    fn traffic(&self, out: &mut DescriptorEncoder) -> Result {
        gauge(out, "wsgate_connections", "TCP and Unix connections that are open", self.level(|s| &s.connections))?;
        let mut family = out.encode_descriptor("wsgate_sessions", "WebSocket sessions", None, MetricType::Gauge)?;
        for &service in ServiceLabel::ALL {
            let level = self.level(|s| &s.sessions[service as usize]);
            family.encode_family(&[("service", service.label())])?.encode_gauge(&level)?;
        }
        type Pick = fn(&ShardMetrics) -> &[[AtomicU64; Direction::COUNT]; ServiceLabel::COUNT];
        let families: [(&str, &str, Pick); 2] = [
            ("wsgate_messages", "WebSocket messages, from clients (in) and to them (out)", |s| &s.messages),
            (
                "wsgate_bytes",
                "Payload bytes, of rooms and echo before compression, from clients (in) and to them (out)",
                |s| &s.bytes,
            ),
        ];
        for (name, help, pick) in families {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            for &service in ServiceLabel::ALL {
                for &direction in Direction::ALL {
                    let total = self.sum(|s| &pick(s)[service as usize][direction as usize]);
                    let set = [("service", service.label()), ("direction", direction.label())];
                    family.encode_family(&set)?.encode_counter::<NoLabelSet, _, u64>(&total, None)?;
                }
            }
        }
        Ok(())
    }

    fn handshakes(&self, out: &mut DescriptorEncoder) -> Result {
        let outcomes = Handshake::ALL
            .iter()
            .map(|&outcome| ([("outcome", outcome.label())], self.sum(|s| &s.handshakes[outcome as usize])));
        counters(out, "wsgate_handshakes", "Ends of TLS handshakes and first request heads", outcomes)?;
        let reasons = Refused::ALL
            .iter()
            .map(|&reason| ([("reason", reason.label())], self.sum(|s| &s.refusals[reason as usize])));
        counters(out, "wsgate_refusals", "Requests and connections that were refused", reasons)?;
        let classes = StatusClass::ALL
            .iter()
            .map(|&class| ([("status", class.label())], self.sum(|s| &s.requests[class as usize])));
        counters(out, "wsgate_requests", "Ordinary requests that were passed on, by their answer's status", classes)?;
        let in_flight = self.level(|s| &s.requests_in_flight);
        gauge(out, "wsgate_requests_in_flight", "Ordinary requests whose answer has not ended", in_flight)
    }

    fn closes(&self, out: &mut DescriptorEncoder) -> Result {
        let help = "Sessions that ended, by who ended them and the close code";
        let mut family = out.encode_descriptor("wsgate_closes", help, None, MetricType::Counter)?;
        for &service in ServiceLabel::ALL {
            for (place, by) in labels::BY.into_iter().enumerate() {
                for code in 0..labels::CODES {
                    let total = self.sum(|s| &s.closes[service as usize][place][code]);
                    let set = [("service", service.label()), ("by", by.label()), ("code", labels::code_label(code))];
                    family.encode_family(&set)?.encode_counter::<NoLabelSet, _, u64>(&total, None)?;
                }
            }
        }
        Ok(())
    }

    fn rooms(&self, out: &mut DescriptorEncoder) -> Result {
        gauge(out, "wsgate_rooms", "Rooms that exist here", self.level(|s| &s.rooms))?;
        gauge(out, "wsgate_room_members", "Sessions in rooms, summed over the rooms", self.level(|s| &s.room_members))?;
        let deliveries = self.sum(|s| &s.deliveries);
        counter(out, "wsgate_deliveries", "Room messages put into outboxes of members", deliveries)?;
        let backlog = self.level(|s| &s.backlog_bytes);
        gauge(out, "wsgate_backlog_bytes", "Bytes that wait in outboxes for slow clients", backlog)
    }

    fn broker(&self, out: &mut DescriptorEncoder) -> Result {
        let gaps = self.sum(|s| &s.gaps_filled);
        counter(
            out,
            "wsgate_cluster_gaps_filled",
            "Times that a room had missed messages of Redis and read them",
            gaps,
        )?;
        let messages = self.sum(|s| &s.messages_filled);
        counter(
            out,
            "wsgate_cluster_messages_filled",
            "Messages that were read because they had been missed",
            messages,
        )?;
        let causes = PlacesLost::ALL
            .iter()
            .map(|&cause| ([("cause", cause.label())], self.sum(|s| &s.places_lost[cause as usize])));
        let help = "Times that the members of a room lost their places, for what Redis has no more";
        counters(out, "wsgate_cluster_places_lost", help, causes)?;
        let flushes = self.sum(|s| &s.presence_flushes);
        counter(
            out,
            "wsgate_cluster_presence_flushes",
            "Times that Redis was told what this node holds in a room",
            flushes,
        )
    }

    fn hook(&self, out: &mut DescriptorEncoder) -> Result {
        let asked = Asked::ALL.iter().flat_map(|&event| {
            AskedOutcome::ALL.iter().map(move |&outcome| {
                let set = [("event", event.label()), ("outcome", outcome.label())];
                (set, self.sum(|s| &s.asked[event as usize][outcome as usize]))
            })
        });
        counters(out, "wsgate_hook_asked", "Questions to the application, by what came of them", asked)?;
        let told = ToldOutcome::ALL
            .iter()
            .map(|&outcome| ([("outcome", outcome.label())], self.sum(|s| &s.told[outcome as usize])));
        counters(out, "wsgate_hook_told", "Events that the application was to be told of, by their end", told)?;
        let waiting = self.level(|s| &s.hook_waiting);
        gauge(out, "wsgate_hook_waiting", "Events that wait for the application to be told", waiting)
    }

    fn jwks(&self, out: &mut DescriptorEncoder) -> Result {
        let fetches = Fetched::ALL
            .iter()
            .map(|&outcome| ([("outcome", outcome.label())], self.sum(|s| &s.jwks_fetches[outcome as usize])));
        counters(out, "wsgate_jwks_fetches", "Fetches of the key set for tokens", fetches)?;
        let help = "When the key set for tokens was last fetched, in seconds since 1970; 0: never";
        gauge(out, "wsgate_jwks_fetch_time_seconds", help, self.sum(|s| &s.jwks_fetched_at))
    }

    fn redis(&self, out: &mut DescriptorEncoder) -> Result {
        let connected = self.level(|s| &s.redis_connected);
        gauge(out, "wsgate_redis_connected", "Connections to masters of Redis that can be used", connected)?;
        let reconnects = self.sum(|s| &s.redis_reconnects);
        counter(
            out,
            "wsgate_redis_reconnects",
            "Connections to Redis that failed, and were to be made again",
            reconnects,
        )?;
        let calls = RedisCall::ALL
            .iter()
            .map(|&outcome| ([("outcome", outcome.label())], self.sum(|s| &s.redis_calls[outcome as usize])));
        counters(out, "wsgate_redis_calls", "Calls of Redis, by what came of them", calls)
    }

    fn servers(&self, out: &mut DescriptorEncoder) -> Result {
        let servers = self.servers.read().unwrap_or_default();
        if servers.is_empty() {
            return Ok(());
        }
        fn labels(levels: &ServerLevels) -> [(&'static str, &str); 2] {
            [("upstream", &levels.upstream), ("server", &levels.server)]
        }
        let help = "Whether a server of an upstream is chosen: checks find it healthy, and it can be connected to";
        let healthy = servers.iter().map(|levels| (labels(levels), i64::from(levels.healthy)));
        gauges(out, "wsgate_upstream_healthy", help, healthy)?;
        let used = servers.iter().map(|levels| (labels(levels), levels.used as i64));
        gauges(out, "wsgate_upstream_used", "Sessions and requests that use a server of an upstream", used)?;
        let failures = servers.iter().map(|levels| (labels(levels), levels.connect_failures));
        let help = "Connections to a server of an upstream that could not be made";
        counters(out, "wsgate_upstream_connect_failures", help, failures)?;
        let ejections = servers.iter().map(|levels| (labels(levels), levels.ejections));
        let help = "Times that a server of an upstream was left alone because it could not be connected to";
        counters(out, "wsgate_upstream_ejections", help, ejections)
    }

    fn cluster(&self, out: &mut DescriptorEncoder) -> Result {
        let Some(levels) = self.cluster.read() else { return Ok(()) };
        gauge(out, "wsgate_cluster_nodes", "Nodes of the cluster that live, this one included", levels.nodes as i64)?;
        let reached = i64::from(levels.reached);
        gauge(out, "wsgate_cluster_redis_reached", "Whether Redis is reached, all masters of it", reached)?;
        let help = "Answers of other nodes that were missing when the admin interface asked for them";
        counter(out, "wsgate_cluster_unanswered", help, levels.unanswered)
    }

    fn shards(&self, out: &mut DescriptorEncoder) -> Result {
        counter(
            out,
            "wsgate_session_panics",
            "Panics that ended a session, or one turn of a shard's loop: each is a bug",
            self.sum(|s| &s.panics),
        )?;
        let pauses = self.sum(|s| &s.accept_pauses);
        counter(out, "wsgate_accept_pauses", "Times that accepting stopped for want of descriptors", pauses)?;
        let bounds = LAG_BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(i, le)| (le, self.sum(|s| &s.loop_lag.buckets[i]))).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        let seconds = Duration::from_micros(self.sum(|s| &s.loop_lag.total_us)).as_secs_f64();
        out.encode_descriptor(
            "wsgate_loop_lag_seconds",
            "How late timers of shards fired",
            None,
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }

    fn about(&self, out: &mut DescriptorEncoder) -> Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauge(out, "wsgate_start_time_seconds", "When the gateway started, in seconds since 1970", started)?;
        out.encode_descriptor("wsgate_build", "The version that runs", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

fn process(out: &mut DescriptorEncoder) -> Result {
    let seen = Process::look();
    if let Some(bytes) = seen.resident_bytes {
        gauge(out, "process_resident_memory_bytes", "Resident memory", bytes)?;
    }
    if let Some(open) = seen.open_fds {
        gauge(out, "process_open_fds", "Open file descriptors", open)?;
    }
    if let Some(max) = seen.max_fds {
        gauge(out, "process_max_fds", "The limit of open file descriptors", max)?;
    }
    if let Some(seconds) = seen.cpu_seconds {
        out.encode_descriptor("process_cpu_seconds", "User and system time", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
    }
    Ok(())
}

fn gauge<V>(out: &mut DescriptorEncoder, name: &str, help: &str, value: V) -> Result
where
    V: prometheus_client::encoding::EncodeGaugeValue,
{
    out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn counter(out: &mut DescriptorEncoder, name: &str, help: &str, total: u64) -> Result {
    out.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&total, None)
}

fn gauges<S: EncodeLabelSet>(
    out: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (S, i64)>,
) -> Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (set, level) in series {
        family.encode_family(&set)?.encode_gauge(&level)?;
    }
    Ok(())
}

fn counters<S: EncodeLabelSet>(
    out: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (S, u64)>,
) -> Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (set, total) in series {
        family.encode_family(&set)?.encode_counter::<NoLabelSet, _, u64>(&total, None)?;
    }
    Ok(())
}
