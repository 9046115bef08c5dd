//! What an application is told, once in the cluster.
use super::*;
use crate::config::HookEvent::{self, Joined, Left, Occupied, Vacated};
use crate::hook::Hook;

/// Nodes, each with a hook that is told all.
fn hooked(count: u64) -> (Nodes, Vec<Arc<Hook>>) {
    let hooks = RefCell::new(Vec::new());
    let nodes = Nodes::with_parts(count, || {
        let config = config::Hook {
            url: "http://127.0.0.1:1/".into(),
            events: vec![Joined, Left, Occupied, Vacated],
            timeout: LONG,
            deny_on_failure: false,
            secret: None,
        };
        let hook = Hook::new(&config, Metrics::new(1)).unwrap();
        hooks.borrow_mut().push(hook.clone());
        Parts { hook: Some(hook), ..Parts::alone(rules()) }
    });
    (nodes, hooks.into_inner())
}

fn told(hooks: &[Arc<Hook>]) -> Vec<Vec<(HookEvent, Option<Box<str>>)>> {
    hooks.iter().map(|hook| hook.take_told()).collect()
}

fn of(client: &str) -> Option<Box<str>> {
    Some(client.into())
}

#[tokio::test(start_paused = true)]
async fn the_node_where_it_happened_tells() {
    let (nodes, hooks) = hooked(3);
    let bob = nodes.member(1, "bob");
    assert_eq!(told(&hooks), [vec![], vec![(Occupied, None), (Joined, of("bob"))], vec![]]);
    let (here, there) = (nodes.member(0, "alice"), nodes.member(2, "alice"));
    assert_eq!(told(&hooks), [vec![(Joined, of("alice"))], vec![], vec![]]);
    let lose = |mut tab: Tab| {
        tab.lose();
        nodes.settle();
        told(&hooks)
    };
    assert_eq!(lose(here), [vec![], vec![], vec![]]);
    assert_eq!(lose(bob), [vec![], vec![(Left, of("bob"))], vec![]]);
    assert_eq!(lose(there), [vec![], vec![], vec![(Left, of("alice")), (Vacated, None)]]);
    let _again = nodes.member(0, "alice");
    assert_eq!(told(&hooks)[0], [(Occupied, None), (Joined, of("alice"))]);
}

/// Nobody is in the room on node 1, and node 0 is dead too.
#[tokio::test(start_paused = true)]
async fn for_a_dead_node_the_first_that_lives_and_has_members_tells() {
    let (mut nodes, hooks) = hooked(5);
    let _tabs = [0, 2, 3, 4].map(|node| nodes.member(node, &format!("on-{node}")));
    let _both = [nodes.member(2, "both"), nodes.member(3, "both")];
    told(&hooks);
    nodes.cluster.kill(NodeId(0));
    nodes.kills(3);
    // Node 0 is still taken for one that lives.
    assert_eq!(told(&hooks), vec![vec![]; 5]);
    nodes.kills(0);
    let mut wanted = vec![vec![]; 5];
    wanted[2] = vec![(Left, of("on-0"))];
    assert_eq!(told(&hooks), wanted);
    nodes.kills(4);
    wanted[2] = vec![(Left, of("on-4"))];
    assert_eq!(told(&hooks), wanted);
}
