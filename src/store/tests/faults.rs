//! A disk that fails, and works again. After a failed sync what was written is in the file nevertheless.
use super::*;

const FAULTS: [Fault; 2] = [Fault::Full, Fault::Sync];

#[test]
fn a_failed_message_is_not_stored_and_its_place_is_free() {
    for fault in FAULTS {
        let scratch = Scratch::new();
        let mut bench = Bench::open(&scratch.0);
        for offset in 1..=3 {
            assert!(bench.append(message("a", "e", offset)));
        }
        bench.fail(fault);
        assert!(!bench.append(Append { keep_from: 2, ..message("a", "e", 4) }));
        assert!(bench.try_load("a").is_err());
        assert!(!bench.append(message("a", "e", 5)));
        bench.fail(Fault::None);
        assert!(!bench.append(message("a", "e", 6)), "what was on its way must not leave a gap");
        let loaded = bench.load("a").expect("stored");
        assert_eq!((&*loaded.epoch, loaded.offset), ("e", 3));
        assert!(loaded.records.iter().eq(stored("e", loaded.records[0].offset..=3).expect("some").records.iter()));
        assert!(bench.append(message("a", "e", 4)));
        assert!(bench.append(message("a", "e", 5)));
        bench.close();
        let mut bench = Bench::open(&scratch.0);
        assert_eq!(bench.store.ended(), Ended::Cleanly);
        assert_eq!(bench.load("a").map(|l| l.offset), Some(5), "{fault:?}");
    }
}

#[test]
fn messages_behind_a_failed_one_fail_too() {
    for fault in FAULTS {
        let scratch = Scratch::new();
        let mut bench = Bench::open(&scratch.0);
        assert!(bench.append(message("a", "e", 1)));
        let go = bench.hold_up();
        bench.fail(fault);
        // More than one transaction takes.
        for offset in 2..=2001 {
            bench.link.append(offset, Append { acknowledged: 1, ..message("a", "e", offset) }).expect("queued");
            bench.link.append(0, Append { acknowledged: 0, ..message("b", "f", offset - 1) }).expect("queued");
        }
        drop(go);
        for _ in 0..2000 {
            assert!(matches!(bench.next(), Reply::Failed { .. }));
        }
        bench.fail(Fault::None);
        for _ in 0..2000 {
            assert!(matches!(bench.next(), Reply::Failed { .. }));
        }
        assert_eq!(bench.load("a"), stored("e", 1..=1));
        assert_eq!(bench.load("b"), None);
        assert!(bench.append(message("b", "f", 1)));
    }
}

#[test]
fn whatever_was_written_is_taken_back() {
    for fault in FAULTS {
        let scratch = Scratch::new();
        let mut bench = Bench::open(&scratch.0);
        for name in ["grows", "restarts", "goes"] {
            assert!(bench.append(message(name, "e", 1)));
        }
        assert_eq!(bench.put_ban("replaced", forever("old")), Ok(BanWritten::Put));
        assert_eq!(bench.put_ban("lifted", forever("old")), Ok(BanWritten::Put));
        let go = bench.hold_up();
        bench.fail(fault);
        bench.link.append(1, message("grows", "e", 2)).expect("queued");
        bench.link.append(2, message("restarts", "f", 1)).expect("queued");
        bench.link.forget(3, room("goes")).expect("queued");
        bench.link.append(4, message("comes", "e", 1)).expect("queued");
        bench.link.append(5, message("comes", "f", 1)).expect("queued");
        let (told, answers) = sync_channel(3);
        for (client, lifts) in [("replaced", false), ("new", false), ("lifted", true)] {
            let told = told.clone();
            let done = move |written| told.send(written).expect("asked");
            let asked = if lifts {
                bench.store.lift_ban(ban(client), None, done)
            } else {
                bench.store.put_ban(ban(client), forever("new"), done)
            };
            asked.expect("queued");
        }
        drop(go);
        for expected in 1..=5 {
            assert!(matches!(bench.next(), Reply::Failed { ticket } if ticket == expected));
        }
        for _ in 0..3 {
            assert!(matches!(answers.recv().expect("answered"), Err(StoreError::Failed { .. })));
        }
        bench.fail(Fault::None);
        assert_eq!(bench.load("grows"), stored("e", 1..=1));
        assert_eq!(bench.load("comes"), None);
        // What was deleted may be gone, but not the place in the order.
        for name in ["restarts", "goes"] {
            let loaded = bench.load(name).expect("stored");
            assert_eq!((&*loaded.epoch, loaded.offset), ("e", 1), "{fault:?} {name}");
            assert!(bench.append(message(name, "e", 2)));
        }
        let bans = vec![(ban("lifted"), forever("old")), (ban("replaced"), forever("old"))];
        assert_eq!(bench.store.bans(), Ok(bans.clone()));
        bench.close();
        assert_eq!(Bench::open(&scratch.0).store.bans(), Ok(bans));
    }
}

#[test]
fn a_store_that_cannot_be_closed_is_found_so() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    assert!(bench.append(message("a", "e", 1)));
    bench.fail(Fault::Full);
    bench.close();
    let mut bench = Bench::open(&scratch.0);
    assert_eq!(bench.store.ended(), Ended::Uncleanly);
    assert_eq!(bench.load("a"), stored("e", 1..=1));
}

#[test]
fn a_full_disk_at_the_first_open_leaves_no_store() {
    let scratch = Scratch::new();
    for fault in FAULTS {
        let faults = Faults::default();
        *faults.now.lock().expect("lock") = fault;
        let options = Options { now_ms: || 0, retry: Duration::ZERO, faults };
        assert!(Store::open_with(&scratch.0, options).is_err());
        assert!(!Store::exists(&scratch.0));
    }
    Bench::open(&scratch.0).close();
}

#[test]
fn what_a_failed_sync_left_behind_is_written_again() {
    let scratch = Scratch::new();
    let faults = Faults::default();
    let folder = disk::Folder::take(&scratch.0, faults.clone()).expect("folder");
    let database = folder.open().expect("opens");
    tables::begin(&database).expect("begins");
    *faults.now.lock().expect("lock") = Fault::Sync;
    assert!(tables::end(&database).is_err());
    drop(database);
    let waiting = folder.unsynced.lock().expect("lock").clone();
    assert!(waiting.len() > 1 && waiting.contains_key(&0), "{waiting:?}");
    assert!(folder.open().is_err());
    assert!(waiting.keys().all(|at| folder.unsynced.lock().expect("lock").contains_key(at)));
    *faults.now.lock().expect("lock") = Fault::None;
    let database = folder.open().expect("opens");
    assert!(tables::begin(&database).is_ok());
    assert!(folder.unsynced.lock().expect("lock").is_empty());
}
