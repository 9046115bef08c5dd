//! What the store does with what it is asked, on a disk that works.
use super::*;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn what_is_stored_is_loaded_also_after_reopening() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    assert_eq!(bench.load("a"), None);
    for offset in 1..=5 {
        assert!(bench.append(message("a", "e", offset)));
    }
    assert!(bench.append(message("b", "f", 1)));
    assert_eq!(bench.load("a"), stored("e", 1..=5));
    bench.close();

    let mut bench = Bench::open(&scratch.0);
    assert_eq!(bench.store.ended(), Ended::Cleanly);
    assert_eq!(bench.load("a"), stored("e", 1..=5));
    assert_eq!(bench.load("b"), stored("f", 1..=1));
    assert!(bench.append(message("a", "e", 6)));
    assert_eq!(bench.load("a"), stored("e", 1..=6));
}

#[test]
fn rooms_of_one_name_in_two_namespaces_are_two() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    let elsewhere = RoomName { namespace: "m".into(), room: "a".into() };
    assert!(bench.append(Append { room: elsewhere, ..message("a", "x", 1) }));
    assert_eq!(bench.load("a"), None);
}

#[test]
fn a_message_out_of_order_fails_and_harms_nothing() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for offset in [1, 2, 3] {
        assert!(bench.append(message("a", "e", offset)));
    }
    for wrong in [0, 1, 3, 5, u64::MAX] {
        assert!(!bench.append(message("a", "e", wrong)), "{wrong}");
    }
    assert_eq!(bench.load("a"), stored("e", 1..=3));
    assert!(bench.append(message("a", "e", 4)));
    assert_eq!(bench.load("a"), stored("e", 1..=4));
}

#[test]
fn a_room_that_is_not_stored_begins_only_behind_what_is_known_to_be() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    // The first message failed: the second must not stand alone.
    assert!(!bench.append(Append { acknowledged: 0, ..message("a", "e", 2) }));
    assert!(!bench.append(Append { acknowledged: 0, ..message("a", "e", 0) }));
    assert_eq!(bench.load("a"), None);
    // The room was purged while it was open.
    assert!(bench.append(message("a", "e", 51)));
    assert_eq!(bench.load("a"), stored("e", 51..=51));
}

#[test]
fn another_epoch_starts_the_room_anew() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for offset in 1..=4 {
        assert!(bench.append(message("a", "e", offset)));
    }
    assert!(!bench.append(Append { acknowledged: 0, ..message("a", "f", 2) }));
    assert_eq!(bench.load("a"), stored("e", 1..=4));
    assert!(bench.append(message("a", "f", 1)));
    assert_eq!(bench.load("a"), stored("f", 1..=1));
}

#[test]
fn records_before_the_first_kept_one_are_deleted() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for offset in 1..=9_u64 {
        assert!(bench.append(Append { keep_from: offset.saturating_sub(2), ..message("a", "e", offset) }));
    }
    assert!(bench.append(message("b", "e", 1)));
    assert_eq!(bench.load("a"), stored("e", 7..=9));
    assert!(bench.append(Append { keep_from: 11, ..message("a", "e", 10) }));
    assert_eq!(bench.load("a"), Some(Loaded { epoch: "e".into(), offset: 10, records: Vec::new() }));
    assert!(bench.append(message("a", "e", 11)));
    assert_eq!(bench.load("a"), stored("e", 11..=11));
    assert_eq!(bench.load("b"), stored("e", 1..=1));
}

#[test]
fn a_forgotten_room_is_gone_with_its_history() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for name in ["a", "b"] {
        assert!(bench.append(message(name, "e", 1)));
    }
    assert!(bench.forget("a"));
    assert!(bench.forget("a"));
    assert_eq!(bench.load("a"), None);
    assert_eq!(bench.load("b"), stored("e", 1..=1));
    assert!(bench.append(message("a", "g", 1)));
    assert_eq!(bench.load("a"), stored("g", 1..=1));
}

#[test]
fn silent_rooms_are_purged_at_open() {
    /// `record(1)`, an age of 60 s twice, and a day.
    const LAST_MS: i64 = 1_001 + 120_000 + 86_400_000;
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for number in 0..600 {
        assert!(bench.link.append(0, message(&format!("old-{number}"), "e", 1)).is_ok());
    }
    for _ in 0..600 {
        assert!(matches!(bench.next(), Reply::Appended { .. }));
    }
    assert!(bench.append(Append { age: Duration::from_secs(61), ..message("older", "e", 1) }));
    assert!(bench.append(Append { age: Duration::MAX, ..message("kept", "e", 1) }));
    bench.close();

    let mut bench = Bench::open_at(&scratch.0, || LAST_MS);
    assert_eq!(bench.load("old-0"), stored("e", 1..=1));
    bench.close();

    let mut bench = Bench::open_at(&scratch.0, || LAST_MS + 1);
    // A slice deletes 256, and there is one before each request at least.
    for _ in 0..3 {
        bench.load("kept");
    }
    for number in 0..600 {
        assert_eq!(bench.load(&format!("old-{number}")), None, "{number}");
    }
    assert_eq!(bench.load("older"), stored("e", 1..=1));
    assert_eq!(bench.load("kept"), stored("e", 1..=1));
}

#[test]
fn a_slice_of_a_purge_deletes_a_bounded_part_of_a_room() {
    use tables::{Cursor, Tables};
    let scratch = Scratch::new();
    let folder = disk::Folder::take(&scratch.0, Faults::default()).expect("folder");
    let database = folder.open().expect("opens");
    #[expect(clippy::disallowed_methods, reason = "nobody answers")]
    let (to, _) = unbounded_channel();
    let apply = |tables: &mut Tables<'_>, request| tables.apply(&request, &mut tables::Undo::default()).expect("works");
    let room_at = |name: &str| Some(("n".to_owned(), name.to_owned()));
    tables::transact(&database, |tables| {
        for (name, records, bytes) in [("few", 10, 1), ("large", 4, 3 << 20), ("many", 9000, 1)] {
            for offset in 1..=records {
                let text = vec![b'1'; bytes].into();
                let append = Append { record: Record { text, ..record(offset) }, ..message(name, "e", offset) };
                apply(tables, Request::Append { ticket: 0, append: append.into(), to: to.clone() });
            }
        }
        Ok(())
    })
    .expect("commits");
    let kept = |name: &str| {
        let request = Request::Load { ticket: 0, room: room(name), to: to.clone() };
        let (outcome, _) = tables::transact(&database, |tables| Ok(apply(tables, request))).expect("reads");
        let queue::Outcome::Loaded(loaded) = outcome else { panic!("loaded") };
        loaded.map(|l| (l.offset, l.records.first().map(|r| r.offset)))
    };
    let purge = |from: &Cursor| tables::transact(&database, |tables| tables.purge(from, i64::MAX)).expect("purges").0;
    let from = purge(&Cursor::Rooms(None)).expect("more");
    assert_eq!((&from, kept("few"), kept("large")), (&Cursor::Rooms(room_at("few")), None, Some((4, Some(4)))));
    let mut from = from;
    for first in [4096, 4096 + 4096] {
        from = purge(&from).expect("more");
        assert_eq!((&from, kept("large")), (&Cursor::Rooms(room_at("large")), None));
        assert_eq!(kept("many"), Some((9000, Some(first))));
    }
    let from = purge(&from).expect("more");
    assert_eq!((&from, kept("many")), (&Cursor::Bans(None), None));
    assert_eq!(purge(&from), None);
}

#[test]
fn ended_bans_are_purged_whatever_their_namespace() {
    const NOW_MS: i64 = 1_000;
    let scratch = Scratch::new();
    let bench = Bench::open(&scratch.0);
    let put = |namespace: &str, client: &str, until_us| {
        let key = BanKey { namespace: namespace.into(), ..ban(client) };
        bench.store.put_ban(key, BanRow { since_us: 1, until_us, reason: None }, |_| ()).is_ok()
    };
    // More than one slice looks at.
    for number in 0..5000 {
        while !put("old", &number.to_string(), Some(NOW_MS * 1000)) {
            std::thread::yield_now();
        }
    }
    while !(put("new", "ended", Some(0)) && put("old", "later", Some(NOW_MS * 1000 + 1)) && put("old", "never", None)) {
        std::thread::yield_now();
    }
    bench.close();
    let mut bench = Bench::open_at(&scratch.0, || NOW_MS);
    // One slice for the rooms, two for the bans; there is one before each request at least.
    for _ in 0..3 {
        bench.load("a");
    }
    let left: Vec<_> = bench.store.bans().expect("bans").into_iter().map(|(key, _)| key.client).collect();
    assert_eq!(left, ["later".into(), "never".into()]);
}

#[test]
fn what_waits_is_one_commit_and_all_of_it_is_answered() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    bench.load("a");
    let go = bench.hold_up();
    let before = bench.faults.syncs.load(Relaxed);
    for ticket in 0..300 {
        let name = ["a", "b", "c"][ticket as usize % 3];
        bench.link.append(ticket, message(name, "e", ticket / 3 + 1)).expect("queued");
    }
    bench.link.append(300, message("a", "e", 200)).expect("queued");
    bench.link.load(301, room("a")).expect("queued");
    bench.link.forget(302, room("b")).expect("queued");
    drop(go);
    for expected in 0..300 {
        assert!(matches!(bench.next(), Reply::Appended { ticket } if ticket == expected));
    }
    assert!(matches!(bench.next(), Reply::Failed { ticket: 300 }));
    let found = bench.next();
    assert!(matches!(found, Reply::Loaded { ticket: 301, found: Ok(found), .. } if found == stored("e", 1..=100)));
    assert!(matches!(bench.next(), Reply::Forgotten { ticket: 302 }));
    assert_eq!(bench.faults.syncs.load(Relaxed), before + 1);
    assert_eq!(bench.load("b"), None);
    assert_eq!(bench.faults.syncs.load(Relaxed), before + 1, "a load writes nothing");
}

#[test]
fn a_full_queue_refuses_at_once_and_has_places_for_bans() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    let go = bench.hold_up();
    let mut taken = 0;
    while bench.link.load(taken, room("a")).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, (queue::REQUESTS_MAX - queue::REQUESTS_KEPT) as u64);
    assert_eq!(bench.link.append(0, message("a", "e", 1)), Err(Full));
    assert_eq!(bench.link.forget(0, room("a")), Err(Full));
    assert_eq!(bench.store.lift_ban(ban("x"), Some(0), |_| ()), Err(Full), "a sweep has time");
    assert_eq!(bench.store.lift_ban(ban("x"), None, |_| ()), Ok(()));
    for _ in 1..queue::REQUESTS_KEPT {
        assert_eq!(bench.store.put_ban(ban("x"), forever("r"), |_| ()), Ok(()));
    }
    assert_eq!(bench.store.put_ban(ban("y"), forever("r"), |_| ()), Err(Full));
    drop(go);
    for expected in 0..taken {
        assert!(matches!(bench.next(), Reply::Loaded { ticket, .. } if ticket == expected));
    }
    assert!(bench.append(message("a", "e", 1)));
    assert_eq!(bench.store.bans(), Ok(vec![(ban("x"), forever("r"))]));
}

#[test]
fn a_queue_is_full_by_bytes_too() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    let large = |offset: u64, bytes: usize| {
        let text = vec![b'1'; bytes].into();
        Append { record: Record { text, ..record(offset) }, keep_from: offset, ..message("a", "e", offset) }
    };
    let go = bench.hold_up();
    let mut taken = 0;
    while bench.link.append(0, large(taken + 1, 1 << 20)).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, ((queue::BYTES_MAX - queue::BYTES_KEPT) >> 20) as u64 - 1);
    drop(go);
    for _ in 0..taken {
        assert!(matches!(bench.next(), Reply::Appended { .. }));
    }
    // One that is larger than all the queue is taken alone, and leaves room for bans.
    let go = bench.hold_up();
    assert_eq!(bench.link.append(0, large(taken + 1, queue::BYTES_MAX + 1)), Ok(()));
    assert_eq!(bench.link.load(0, room("a")), Err(Full));
    let mut bans = 0;
    while bench.store.put_ban(ban("x"), forever("r"), |_| ()).is_ok() {
        bans += 1;
    }
    assert!((1000..queue::REQUESTS_MAX).contains(&bans), "{bans}: full by bytes");
    drop(go);
    assert!(matches!(bench.next(), Reply::Appended { .. }));
}

#[test]
fn bans_are_stored_replaced_and_lifted() {
    let scratch = Scratch::new();
    let bench = Bench::open(&scratch.0);
    let ends = |until_us| BanRow { since_us: 1, until_us: Some(until_us), reason: None };
    assert_eq!(bench.put_ban("ann", forever("old")), Ok(BanWritten::Put));
    assert_eq!(bench.put_ban("ann", forever("new")), Ok(BanWritten::Put));
    assert_eq!(bench.put_ban("bob", ends(100)), Ok(BanWritten::Put));
    assert_eq!(bench.put_ban("eve", ends(200)), Ok(BanWritten::Put));
    assert_eq!(bench.lift_ban("ann", Some(i64::MAX)), Ok(BanWritten::Lifted(false)));
    assert_eq!(bench.lift_ban("bob", Some(100)), Ok(BanWritten::Lifted(true)));
    assert_eq!(bench.lift_ban("eve", Some(199)), Ok(BanWritten::Lifted(false)));
    assert_eq!(bench.lift_ban("nobody", None), Ok(BanWritten::Lifted(false)));
    let expected = vec![(ban("ann"), forever("new")), (ban("eve"), ends(200))];
    assert_eq!(bench.store.bans(), Ok(expected.clone()));
    bench.close();
    assert_eq!(Bench::open(&scratch.0).store.bans(), Ok(expected));
}

#[test]
fn there_is_a_bound_to_bans() {
    let scratch = Scratch::new();
    let bench = Bench::open(&scratch.0);
    for number in 0..BANS_MAX {
        while bench
            .store
            .put_ban(ban(&number.to_string()), forever(""), |w| assert_eq!(w, Ok(BanWritten::Put)))
            .is_err()
        {
            std::thread::yield_now();
        }
    }
    // Waits for those before it.
    while bench.store.put_ban(ban("0"), forever("again"), |_| ()).is_err() {}
    assert_eq!(bench.store.bans().expect("bans").len() as u64, BANS_MAX);
    assert_eq!(bench.put_ban("new", forever("")), Ok(BanWritten::TooMany));
    assert_eq!(bench.put_ban("1", forever("again")), Ok(BanWritten::Put));
    assert_eq!(bench.lift_ban("1", None), Ok(BanWritten::Lifted(true)));
    assert_eq!(bench.put_ban("new", forever("")), Ok(BanWritten::Put));
}

#[test]
fn there_is_a_bound_to_rooms() {
    let scratch = Scratch::new();
    let folder = disk::Folder::take(&scratch.0, Faults::default()).expect("folder");
    let database = folder.open().expect("opens");
    let mut undo = tables::Undo::default();
    tables::transact(&database, |tables| {
        tables.rooms_max = 2;
        let mut append = |name: &str, offset| {
            #[expect(clippy::disallowed_methods, reason = "nobody answers")]
            let (to, _) = unbounded_channel();
            let append = Box::new(message(name, "e", offset));
            let outcome = tables.apply(&Request::Append { ticket: 0, append, to }, &mut undo).expect("works");
            matches!(outcome, queue::Outcome::Done(true))
        };
        assert!(append("a", 1) && append("b", 1));
        assert!(!append("c", 1));
        assert!(append("a", 2));
        Ok(())
    })
    .expect("commits");
}

#[test]
fn after_the_end_calls_are_refused_and_the_folder_is_free() {
    let scratch = Scratch::new();
    let bench = Bench::open(&scratch.0);
    let again = Bench::open(&scratch.0.join("other"));
    again.close();
    bench.store.shutdown();
    bench.store.shutdown();
    assert_eq!(bench.link.load(1, room("a")), Err(Full));
    assert_eq!(bench.store.bans(), Err(StoreError::Ended));
    Bench::open(&scratch.0).close();
}

#[test]
fn folder_and_file_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let folder = scratch.0.join("deep").join("er");
    assert!(!Store::exists(&folder));
    Bench::open(&folder).close();
    assert!(Store::exists(&folder));
    let mode = |path: &Path| std::fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&disk::file_in(&folder)), 0o600);
    let names: Vec<_> = std::fs::read_dir(&folder).expect("folder").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["wsgate.redb"]);
}
