//! Unclean ends, and files that are not as they were left.
use super::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const CHILD: &str = "WSGATE_TEST_STORE_CHILD";
const PAGE: usize = 4096;

/// This test binary again, as another process with this folder.
fn child(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "store::tests::ends::the_other_process", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// Does nothing but in a child: tells how the store opens, appends without end, and tells of each message that is stored.
#[test]
fn the_other_process() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = match Store::open(Path::new(&folder)) {
        Ok(store) => store,
        Err(error) => return println!("\nerror {error}"),
    };
    let (link, replies) = store.connect();
    let faults = Faults::default();
    let mut bench = Bench { store, link, replies, faults };
    let last = bench.load("a").map_or(0, |loaded| loaded.offset);
    // Some are on their way at any time, so that commits hold more than one.
    for offset in last + 1.. {
        let append = Append { acknowledged: last, keep_from: offset.saturating_sub(50), ..message("a", "e", offset) };
        bench.link.append(offset, append).expect("queued");
        if offset > last + 4 {
            match bench.next() {
                Reply::Appended { ticket } => println!("\nstored {ticket}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let scratch = Scratch::new();
    let mut random = StdRng::seed_from_u64(1);
    let mut acknowledged = 0;
    for _ in 0..4 {
        let mut child = child(&scratch.0);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let until = acknowledged + random.random_range(1..60);
        let told = |line: &str| line.strip_prefix("stored ").map(|n| n.parse::<u64>().expect("a number"));
        while acknowledged < until {
            let line = lines.next().expect("goes on").expect("text");
            acknowledged = told(&line).unwrap_or(acknowledged);
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        // What it had told before the signal came.
        for line in lines {
            acknowledged = told(&line.expect("text")).unwrap_or(acknowledged);
        }
        let mut bench = Bench::open(&scratch.0);
        assert_eq!(bench.store.ended(), Ended::Uncleanly);
        let loaded = bench.load("a").expect("stored");
        assert!(loaded.offset >= acknowledged, "{} of {acknowledged}", loaded.offset);
        let first = loaded.offset.saturating_sub(50).max(1);
        assert_eq!(Some(loaded), stored("e", first..=bench.load("a").expect("stored").offset));
        bench.close();
    }
}

#[test]
fn a_store_has_one_user() {
    let scratch = Scratch::new();
    let bench = Bench::open(&scratch.0);
    let second = Store::open(&scratch.0).err();
    assert_eq!(second, Some(StoreError::InUse { file: scratch.file() }));
    let output = child(&scratch.0).wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("is in use by another process"), "{said}");
    bench.close();
    let mut other = child(&scratch.0);
    let lines = BufReader::new(other.stdout.take().expect("piped")).lines();
    assert!(lines.map(|l| l.expect("text")).any(|l| l.starts_with("stored ")));
    assert_eq!(Store::open(&scratch.0).err(), Some(StoreError::InUse { file: scratch.file() }));
    other.kill().expect("killed");
    other.wait().expect("ended");
    Bench::open(&scratch.0).close();
}

/// The file before a commit and after it, neither closed.
struct Commit {
    before: Vec<u8>,
    after: Vec<u8>,
}

fn content(bench: &mut Bench) -> (Option<Loaded>, Option<Loaded>, Vec<(BanKey, BanRow)>) {
    (bench.load("a"), bench.load("b"), bench.store.bans().expect("bans"))
}

/// A file in which only some of the pages of the commit have arrived.
fn torn(commit: &Commit, random: &mut StdRng) -> Vec<u8> {
    let grown = commit.after.len() > commit.before.len() && random.random_bool(0.8);
    let mut file = commit.before.clone();
    if grown {
        file.resize(commit.after.len(), 0);
    }
    let changed: Vec<usize> = (PAGE..file.len().min(commit.after.len()))
        .step_by(PAGE)
        .filter(|&at| file[at..at + PAGE] != commit.after[at..at + PAGE])
        .collect();
    let missing = random.random_range(0..changed.len().max(1));
    let share = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
    for (number, &at) in changed.iter().enumerate() {
        // All but one is the hardest to notice.
        let arrives = if share == 1.0 { number != missing } else { random.random_bool(share) };
        if arrives {
            file[at..at + PAGE].copy_from_slice(&commit.after[at..at + PAGE]);
        }
    }
    // The header is one sector; but it may be cut anywhere.
    let cut = random.random_range(0..=320);
    match random.random_range(0..5) {
        0 => {}
        1 => file[..cut].copy_from_slice(&commit.after[..cut]),
        2 => file[cut..PAGE].copy_from_slice(&commit.after[cut..PAGE]),
        _ => file[..PAGE].copy_from_slice(&commit.after[..PAGE]),
    }
    file
}

/// The file of a store that is in use.
fn snapshot(scratch: &Scratch) -> Vec<u8> {
    std::fs::read(scratch.file()).expect("file")
}

#[test]
fn a_torn_commit_is_cut_off_whole() {
    let large = |offset: u64, bytes: usize| {
        let text = vec![b'1'; bytes].into();
        Append { record: Record { text, ..record(offset) }, ..message("a", "e", offset) }
    };
    // Small; larger than a page; one that makes the file grow; one that deletes much.
    let commits = [message("b", "e", 1), large(41, 20_000), large(41, 3 << 20), message("a", "f", 1)];
    let mut random = StdRng::seed_from_u64(7);
    for (number, last) in commits.into_iter().enumerate() {
        let scratch = Scratch::new();
        let mut bench = Bench::open(&scratch.0);
        for offset in 1..=40 {
            assert!(bench.append(large(offset, 3_000)));
        }
        assert_eq!(bench.put_ban("ann", forever("r")), Ok(BanWritten::Put));
        let old = content(&mut bench);
        let before = snapshot(&scratch);
        assert!(bench.append(last));
        let commit = Commit { before, after: snapshot(&scratch) };
        let new = content(&mut bench);
        assert!(old != new);
        let mut seen = [0, 0];
        for round in 0..40 {
            let copy = Scratch::with(&torn(&commit, &mut random));
            let mut bench = Bench::open(&copy.0);
            assert_eq!(bench.store.ended(), Ended::Uncleanly);
            let found = content(&mut bench);
            assert!(found == old || found == new, "commit {number}, round {round}");
            seen[usize::from(found == new)] += 1;
            // And the store goes on from there.
            assert!(bench.append(message("c", "e", 1)));
            bench.close();
            let mut bench = Bench::open(&copy.0);
            assert_eq!(bench.store.ended(), Ended::Cleanly);
            assert!(content(&mut bench) == found);
        }
        assert!(seen[0] > 0, "commit {number}: {seen:?}");
        let whole = Scratch::with(&commit.after);
        assert!(content(&mut Bench::open(&whole.0)) == new);
    }
}

#[test]
fn an_unclean_end_is_logged() {
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    assert!(bench.append(message("a", "e", 1)));
    let copy = Scratch::with(&snapshot(&scratch));
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || sink.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        Store::open(&copy.0).expect("opens").shutdown();
        Store::open(&copy.0).expect("opens").shutdown();
    });
    let said = String::from_utf8(lines.0.lock().expect("lock").clone()).expect("text");
    assert_eq!(said.matches("was not closed cleanly").count(), 1, "{said}");
    assert!(said.contains("WARN"), "{said}");
}

#[test]
fn a_file_that_is_no_store_is_told_and_left() {
    for content in [&b""[..], b"short", &[0; 70_000], &[0xff; 70_000], b"redb\x1a\x0a\xa9\x0d\x0a"] {
        let scratch = Scratch::with(content);
        let error = Store::open(&scratch.0).err().expect("no store");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert_eq!(snapshot(&scratch), content);
    }
    let scratch = Scratch::new();
    let other = scratch.0.join("other");
    std::fs::create_dir_all(&other).expect("folder");
    redb::Database::create(disk::file_in(&other))
        .and_then(|database| {
            let transaction = database.begin_write().expect("begins");
            transaction
                .open_table(redb::TableDefinition::<u64, u64>::new("x"))
                .expect("table")
                .insert(1, 2)
                .expect("put");
            transaction.open_table(redb::TableDefinition::<u64, u64>::new("rooms")).expect("table");
            transaction.commit().expect("commits");
            database.close()
        })
        .expect("made");
    let error = Store::open(&other).err().expect("no store of ours");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn damage_is_found_or_does_not_matter() {
    let scratch = Scratch::new();
    let mut bench = Bench::open(&scratch.0);
    for offset in 1..=200 {
        assert!(bench.link.append(offset, message("a", "e", offset)).is_ok());
    }
    for _ in 1..=200 {
        assert!(matches!(bench.next(), Reply::Appended { .. }));
    }
    assert_eq!(bench.put_ban("ann", forever("r")), Ok(BanWritten::Put));
    let whole = content(&mut bench);
    bench.close();
    let good = snapshot(&scratch);
    let used = good.len() - good.iter().rev().take_while(|b| **b == 0).count();
    let mut random = StdRng::seed_from_u64(3);
    let mut found = 0;
    for round in 0..150 {
        let mut bad = good.clone();
        match round % 5 {
            0 => bad.truncate(random.random_range(0..bad.len())),
            1 => bad[random.random_range(0..320)] ^= 1 << random.random_range(0..8),
            2 => bad.extend(vec![7; random.random_range(1..9000)]),
            _ => bad[random.random_range(0..used)] ^= 1 << random.random_range(0..8),
        }
        let copy = Scratch::with(&bad);
        match Bench::try_open(&copy.0, || 0) {
            Ok(mut bench) => {
                assert!(content(&mut bench) == whole, "round {round}");
                bench.close();
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "round {round}: {error:?}");
                assert!(snapshot(&copy) == bad, "round {round}: the file was changed: {error}");
                found += 1;
            }
        }
    }
    assert!(found > 50, "{found}");
}
