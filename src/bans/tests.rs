#![allow(missing_docs)]
use super::*;
use crate::store::BANS_MAX;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

const N: Namespace = Namespace { index: 0 };
const M: Namespace = Namespace { index: 1 };

/// A folder that is removed with what is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        Scratch(std::env::temp_dir().join(format!("wsgate-bans-{}", uuid::Uuid::new_v4())))
    }

    fn load(&self) -> Arc<Bans> {
        Bans::load(self.0.clone(), None, &["n".into(), "m".into()]).expect("loads")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ban(client: &str, room: Option<&str>) -> Ban {
    Ban {
        namespace: N,
        client: client.into(),
        room: room.map(Arc::from),
        until: None,
        reason: Some("spam".into()),
        since: Timestamp::from_microsecond(1_700_000_000_000_001).expect("in range"),
    }
}

fn ended(client: &str) -> Ban {
    Ban { until: Some(Timestamp::now() - Duration::from_secs(1)), ..ban(client, None) }
}

fn clients(bans: &[Ban]) -> Vec<(&str, &str)> {
    bans.iter().map(|b| (&*b.client, b.room.as_deref().unwrap_or("-"))).collect()
}

#[tokio::test]
async fn a_ban_holds_where_it_was_made_and_nowhere_else() {
    let scratch = Scratch::new();
    for bans in [Bans::in_memory(), scratch.load()] {
        assert_eq!(bans.from_gateway(N, "ann"), None);
        bans.put(ban("ann", None)).await.expect("put");
        bans.put(ban("bob", Some("r"))).await.expect("put");
        assert_eq!(bans.from_gateway(N, "ann"), Some(ban("ann", None)));
        assert_eq!(bans.from_room(N, "r", "bob"), Some(ban("bob", Some("r"))));
        for found in [bans.from_gateway(M, "ann"), bans.from_gateway(N, "bob"), bans.from_gateway(N, "an")] {
            assert_eq!(found, None);
        }
        for found in [bans.from_room(M, "r", "bob"), bans.from_room(N, "s", "bob"), bans.from_room(N, "", "ann")] {
            assert_eq!(found, None);
        }
        assert_eq!(bans.lift(N, "ann", Some("r")).await, Ok(false));
        assert_eq!(bans.lift(N, "bob", None).await, Ok(false));
        assert_eq!(bans.lift(N, "ann", None).await, Ok(true));
        assert_eq!(bans.lift(N, "ann", None).await, Ok(false));
        assert_eq!(bans.from_gateway(N, "ann"), None);
        assert_eq!(bans.lift(N, "bob", Some("r")).await, Ok(true));
        assert_eq!(bans.shared.count.load(Relaxed), 0);
    }
}

#[tokio::test]
async fn bans_survive_the_process() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    let later = Timestamp::now() + Duration::from_secs(3600);
    bans.put(ban("ann", None)).await.expect("put");
    bans.put(Ban { until: Some(later), reason: None, ..ban("ann", Some("r")) }).await.expect("put");
    bans.put(ban("gone", None)).await.expect("put");
    assert_eq!(bans.lift(N, "gone", None).await, Ok(true));
    let before = bans.list(N, None, 10);
    bans.close();
    let bans = scratch.load();
    assert_eq!(bans.list(N, None, 10), before);
    assert_eq!(clients(&before.0), [("ann", "-"), ("ann", "r")]);
}

#[tokio::test]
async fn a_gateway_that_bans_nobody_has_no_store() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    assert_eq!(bans.lift(N, "ann", None).await, Ok(false));
    bans.sweep();
    assert!(!scratch.0.exists());
    bans.put(ban("ann", None)).await.expect("put");
    assert!(Store::exists(&scratch.0));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told_at_the_first_ban() {
    let bans = Bans::load("/dev/null/wsgate".into(), None, &["n".into()]);
    // Whether there is a store cannot be told there; where that is already a fault it is the operator's to know.
    if let Ok(bans) = bans {
        assert!(matches!(bans.put(ban("ann", None)).await, Err(BanError::Store(StoreError::Failed { .. }))));
        assert_eq!(bans.from_gateway(N, "ann"), None);
    }
}

#[tokio::test]
async fn bans_follow_the_names_of_namespaces_and_unknown_ones_stay() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    bans.put(ban("ann", None)).await.expect("put");
    bans.put(Ban { namespace: M, ..ban("bob", None) }).await.expect("put");
    bans.close();
    let bans = Bans::load(scratch.0.clone(), None, &["m".into()]).expect("loads");
    assert_eq!(clients(&bans.list(N, None, 10).0), [("bob", "-")]);
    assert_eq!(bans.put(Ban { namespace: M, ..ban("eve", None) }).await, Err(BanError::Namespace));
    bans.sweep();
    bans.close();
    let bans = scratch.load();
    assert_eq!(clients(&bans.list(N, None, 10).0), [("ann", "-")]);
    assert_eq!(clients(&bans.list(M, None, 10).0), [("bob", "-")]);
}

#[tokio::test]
async fn a_newer_ban_replaces_an_older_one() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    bans.put(ban("ann", None)).await.expect("put");
    let newer = Ban { reason: Some("worse".into()), ..ban("ann", None) };
    bans.put(newer.clone()).await.expect("put");
    assert_eq!(bans.from_gateway(N, "ann"), Some(newer.clone()));
    assert_eq!(bans.shared.count.load(Relaxed), 1);
    bans.close();
    assert_eq!(scratch.load().from_gateway(N, "ann"), Some(newer));
}

#[tokio::test]
async fn a_ban_that_has_ended_does_not_count_and_is_swept() {
    let scratch = Scratch::new();
    for bans in [Bans::in_memory(), scratch.load()] {
        bans.put(ended("ann")).await.expect("put");
        bans.put(ban("bob", None)).await.expect("put");
        assert_eq!(bans.from_gateway(N, "ann"), None);
        assert_eq!(clients(&bans.list(N, None, 10).0), [("bob", "-")]);
        assert_eq!(bans.lift(N, "ann", None).await, Ok(false), "none held");
        bans.put(ended("ann")).await.expect("put");
        bans.sweep();
        // Goes to the store's thread behind the sweep.
        bans.put(ban("eve", None)).await.expect("put");
        assert_eq!(bans.shared.count.load(Relaxed), 2);
        if let Keep::Store(lazy) = &bans.keep {
            assert_eq!(lazy.store.get().expect("open").bans().expect("bans").len(), 2);
        }
    }
}

#[tokio::test]
async fn a_sweep_spares_a_ban_that_was_made_anew_meanwhile() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    bans.put(ended("ann")).await.expect("put");
    // The new ban is asked for before the sweep looks, and is stored after that.
    let anew = bans.put(ban("ann", None));
    let swept = async { bans.sweep() };
    let (put, ()) = tokio::join!(anew, swept);
    put.expect("put");
    assert_eq!(bans.from_gateway(N, "ann"), Some(ban("ann", None)));
    bans.close();
    assert_eq!(scratch.load().from_gateway(N, "ann"), Some(ban("ann", None)));
}

#[tokio::test]
async fn memory_and_store_agree_whoever_was_first() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    bans.put(ban("first", None)).await.expect("put");
    let mut tasks = JoinSet::new();
    for number in 0..200 {
        let bans = Arc::clone(&bans);
        tasks.spawn(async move {
            let client = ["ann", "bob"][number % 2];
            if number % 7 == 0 {
                bans.lift(N, client, None).await.expect("lifted");
            } else {
                let reason = Some(number.to_string().into());
                bans.put(Ban { reason, ..ban(client, None) }).await.expect("put");
            }
        });
    }
    // Half of them do not wait for the end.
    for _ in 0..100 {
        tasks.join_next().await;
    }
    tasks.shutdown().await;
    bans.put(ban("last", None)).await.expect("put");
    let before = bans.list(N, None, 10);
    bans.close();
    assert_eq!(scratch.load().list(N, None, 10), before);
}

#[tokio::test]
async fn two_first_bans_at_once_open_one_store() {
    let scratch = Scratch::new();
    let bans = scratch.load();
    let (one, two) = tokio::join!(bans.put(ban("ann", None)), bans.put(ban("bob", None)));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(clients(&bans.list(N, None, 10).0), [("ann", "-"), ("bob", "-")]);
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let bans = Bans::in_memory();
    for (client, room) in [("b", Some("y")), ("a", Some("x")), ("b", None), ("c", None), ("b", Some("x"))] {
        bans.put(ban(client, room)).await.expect("put");
    }
    bans.put(Ban { namespace: M, ..ban("d", None) }).await.expect("put");
    let mut seen = Vec::new();
    let mut after: Option<Ban> = None;
    loop {
        let reached = after.as_ref().map(|b| (&*b.client, b.room.as_deref()));
        let (page, more) = bans.list(N, reached, 2);
        assert!(page.len() == 2 || !more);
        after = page.last().cloned();
        seen.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(clients(&seen), [("a", "x"), ("b", "-"), ("b", "x"), ("b", "y"), ("c", "-")]);
    assert_eq!(clients(&bans.list(N, Some(("b", Some("w"))), 1).0), [("b", "x")]);
    assert_eq!(clients(&bans.list(N, Some(("bb", None)), 9).0), [("c", "-")]);
    assert_eq!(bans.list(N, None, 0), (Vec::new(), true));
    assert_eq!(bans.list(Namespace { index: 9 }, None, 5), (Vec::new(), false));
}

#[tokio::test]
async fn what_cannot_be_a_ban_is_refused() {
    let bans = Bans::in_memory();
    let long = "x".repeat(129);
    for client in ["", "a\nb", &long] {
        assert_eq!(bans.put(ban(client, None)).await, Err(BanError::Client));
        assert_eq!(bans.lift(N, client, None).await, Err(BanError::Client));
        assert_eq!(bans.put(ban("a", Some(client))).await, Err(BanError::Room));
    }
    for reason in ["x".repeat(257), "a\u{7}".to_owned()] {
        assert_eq!(bans.put(Ban { reason: Some(reason.into()), ..ban("a", None) }).await, Err(BanError::Reason));
    }
    assert_eq!(bans.put(Ban { reason: Some("x".repeat(256).into()), ..ban("a", None) }).await, Ok(()));
}

#[tokio::test]
async fn there_is_a_bound() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.0).expect("opens");
    let row = BanRow { since_us: 0, until_us: None, reason: None };
    // One of them in a namespace that the configuration does not know.
    for number in 0..BANS_MAX {
        let namespace = if number == 0 { "old" } else { "n" };
        let key = || BanKey { namespace: namespace.into(), client: number.to_string().into(), room: "".into() };
        while store.put_ban(key(), row.clone(), |_| ()).is_err() {
            std::thread::yield_now();
        }
    }
    store.shutdown();
    let bans = scratch.load();
    assert_eq!(bans.shared.count.load(Relaxed) as u64, BANS_MAX - 1);
    assert_eq!(bans.put(ban("new", None)).await, Err(BanError::TooMany));
    assert_eq!(bans.from_gateway(N, "new"), None);
    assert_eq!(bans.lift(N, "1", None).await, Ok(true));
    assert_eq!(bans.put(ban("new", None)).await, Ok(()));
}

#[test]
fn a_store_that_is_damaged_or_in_use_is_told() {
    let scratch = Scratch::new();
    let names: [Arc<str>; 1] = ["n".into()];
    let store = Store::open(&scratch.0).expect("opens");
    let load = |folder: &Path| Bans::load(folder.to_owned(), None, &names).err();
    assert!(matches!(load(&scratch.0), Some(StoreError::InUse { .. })));
    let shared = Bans::load(scratch.0.clone(), Some(store.clone()), &names).expect("loads");
    assert_eq!(shared.from_gateway(N, "ann"), None);
    store.shutdown();
    std::fs::write(scratch.0.join("wsgate.redb"), "x").expect("written");
    assert!(matches!(load(&scratch.0), Some(StoreError::Damaged { .. })));
}
