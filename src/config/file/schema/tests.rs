//! The table of keys against the reader, the reference and README.
use super::key::{Kind, Preset};
use super::{Key, SECTIONS, Section, document, listing};
use crate::config::file::fault::Fault;
use crate::config::file::tests::{REFERENCE, good, read_text};
use crate::config::file::units;
use serde_json::Value;

/// The headers that lead to a section, the last of them its own.
fn headers(section: &Section) -> String {
    let mut text = String::new();
    let mut path = String::new();
    for part in section.name.split('.').filter(|part| !part.is_empty()) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
        if path != "upstream" {
            text += &(Section::named(&path).header() + "\n");
        }
    }
    text
}

/// What is said of this value of a key.
fn faults_of(section: &Section, key: &Key, value: &str) -> Vec<Fault> {
    let help = if key.name == "upstream" && section.name == "route" { "service = \"proxy\"\n" } else { "" };
    let text = format!("{}{help}{} = {value}\n", headers(section), key.name);
    let line = text.lines().count();
    let is_of_it = |f: &Fault| f.line == line || (f.line > 0 && f.message.ends_with("is not supported yet"));
    let faults = read_text(&text).err().into_iter().flat_map(|faults| faults.list);
    faults.filter(is_of_it).collect()
}

fn all_keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    SECTIONS.iter().flat_map(|section| section.keys().map(move |key| (section, key)))
}

#[test]
fn a_wrong_type_of_any_key_is_noticed() {
    for (section, key) in all_keys() {
        let faults = faults_of(section, key, "1979-05-27");
        assert!(!faults.is_empty(), "nobody reads {} of {}", key.name, section.header());
        assert!(!faults.iter().any(|f| f.message.starts_with("unknown key")), "{faults:?}");
    }
    assert!(all_keys().count() > 120);
}

#[test]
fn it_has_no_key_that_the_reference_lacks() {
    for (section, key) in all_keys() {
        assert!(REFERENCE.contains(key.name), "{} of {}", key.name, section.header());
    }
}

/// Values at the bounds, and just outside.
fn probes(kind: &Kind) -> (Vec<String>, Vec<String>) {
    let outside = |least: u64, most: u64| [least.checked_sub(1), Some(most + 1)].into_iter().flatten();
    match kind {
        Kind::Flag => (vec!["true".into(), "false".into()], vec!["0".into(), "\"true\"".into()]),
        Kind::Number(least, most) | Kind::Size(least, most) => {
            (vec![least.to_string(), most.to_string()], outside(*least, *most).map(|n| n.to_string()).collect())
        }
        Kind::Duration(least, most) | Kind::DurationOrZero(least, most) => {
            let millis = |text| units::duration(text).ok().map(|d| d.as_millis() as u64).expect("a duration");
            // Below the least there may still be 0, which lifts the limit.
            let outside = outside(millis(least), millis(most)).map(|n| format!("\"{n}ms\""));
            let (mut inside, mut outside) =
                (vec![format!("{least:?}"), format!("{most:?}")], outside.collect::<Vec<_>>());
            match kind {
                Kind::DurationOrZero(..) => inside.extend(["0".into(), "\"0s\"".into()]),
                _ => outside.push("0".into()),
            }
            (inside, outside)
        }
        Kind::Words(words) => (words.iter().map(|w| format!("{w:?}")).collect(), vec!["\"?\"".into()]),
        Kind::List(_, least, most) => {
            let list = |n: usize| format!("[{}]", "\"\", ".repeat(n));
            (vec![], outside(*least as u64, *most as u64).map(|n| list(n as usize)).collect())
        }
        Kind::OneOrList(_, most) => {
            let list = |n: usize| format!("[{}]", "\"\", ".repeat(n));
            (vec![], vec![list(0), list(most + 1)])
        }
        Kind::Texts(_, _, most) => {
            let table =
                |n: usize| format!("{{ {} }}", (0..n).map(|n| format!("a{n} = \"\"")).collect::<Vec<_>>().join(", "));
            (vec![table(*most)], vec![table(most + 1)])
        }
        Kind::Text(_) | Kind::Table | Kind::Tables(_) | Kind::Named(_) => (vec![], vec![]),
    }
}

#[test]
fn its_bounds_and_words_are_the_readers() {
    let is_later = |faults: &[Fault]| faults.iter().any(|f| f.message.contains("not supported yet"));
    let mut tried = 0;
    for (section, key) in all_keys() {
        let (inside, outside) = probes(&key.kind);
        for value in inside {
            let faults = faults_of(section, key, &value);
            let is_of_value = |f: &Fault| f.message.contains("must be between") || f.message.contains("unknown value");
            assert!(!faults.iter().any(is_of_value), "{value}: {faults:?}");
        }
        for value in outside {
            let faults = faults_of(section, key, &value);
            assert!(!faults.is_empty(), "{} of {}: {value} is accepted", key.name, section.header());
            if let Kind::Words(words) = key.kind
                && !is_later(&faults)
            {
                let help = format!("it is one of \"{}\"", words.join("\", \""));
                assert_eq!(faults[0].help.as_deref(), Some(help.as_str()), "{} of {}", key.name, section.header());
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

/// What must stand in a table for the file to be good.
fn needed(section: &str) -> &'static str {
    match section {
        "listener" => "address = \"127.0.0.1:8443\"\n",
        "listener.tls" => "certificate = \"a.pem\"\nprivate_key = \"b.pem\"\n",
        "auth" => "secret_env = \"WSGATE_JWT_SECRET\"\n",
        "route" => "path = \"/live/*\"\nservice = \"proxy\"\nupstream = \"NAME\"\n",
        "upstream.NAME" => "servers = [\"http://127.0.0.1:8765\"]\n",
        "rooms.policy" => "match = \"a\"\n",
        "rooms.hook" => "url = \"http://127.0.0.1/\"\nevents = [\"join\"]\n",
        "cluster" => "redis = \"redis://127.0.0.1:6379\"\n",
        "admin" => "address = \"127.0.0.1:9180\"\n",
        _ => "",
    }
}

#[test]
fn a_file_that_states_every_default_is_one_that_states_none() {
    let file = |with_presets: bool| {
        let is_read = |s: &&Section| !["", "listener.tls.acme"].contains(&s.name);
        let sections = SECTIONS.iter().filter(|s| !s.own.is_empty()).filter(is_read);
        let presets = |section: &Section| {
            let presets = section.own.iter().filter_map(|key| Some(format!("{} = {}\n", key.name, key.preset_json()?)));
            presets.filter(|_| with_presets).collect::<String>()
        };
        sections.map(|s| s.header() + "\n" + needed(s.name) + &presets(s)).collect::<String>()
    };
    let (bare, full) = (file(false), file(true));
    assert!(full.lines().count() > bare.lines().count() + 70, "{full}");
    assert_eq!(format!("{:#?}", good(&bare)), format!("{:#?}", good(&full)));
}

#[test]
fn every_default_can_be_read() {
    for (section, key) in all_keys() {
        let is_value = matches!(key.preset, Preset::Value(_));
        assert_eq!(key.preset_json().is_some(), is_value, "{} of {}", key.name, section.header());
    }
}

/// The place of a section in the JSON Schema.
fn place<'d>(document: &'d Value, section: &str) -> &'d Value {
    let mut at = document;
    for part in section.split('.').filter(|part| !part.is_empty()) {
        at = if part == "NAME" { &at["additionalProperties"] } else { &at["properties"][part] };
        if at["type"] == "array" {
            at = &at["items"];
        }
    }
    at
}

#[test]
fn the_json_schema_has_every_key() {
    let document = document();
    for section in SECTIONS.iter().filter(|section| !section.is_free()) {
        let table = place(&document, section.name);
        assert_eq!(table["additionalProperties"], false, "{}", section.header());
        let found: Vec<&String> = table["properties"].as_object().expect("properties").keys().collect();
        let mut names = section.names();
        names.sort_unstable();
        assert_eq!(found, names, "{}", section.header());
        for key in section.keys() {
            let property = &table["properties"][key.name];
            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", key.name);
            let is_own = section.own.iter().any(|own| own.name == key.name);
            assert_eq!(property.get("default").cloned(), key.preset_json().filter(|_| is_own), "{}", key.name);
        }
    }
}

/// `BLESS=1` writes the table of README anew, and fails, so that it is read before it is believed.
#[test]
fn readme_lists_every_key() {
    let readme = std::fs::read_to_string("README.md").expect("a readable file");
    let start = readme.find("| key | type (bounds) |").expect("the table of keys");
    let end = start + readme[start..].find("\n\n").expect("its end") + 1;
    let listed = listing::markdown();
    let bless = std::env::var_os("BLESS").is_some();
    if bless {
        std::fs::write("README.md", [&readme[..start], &listed, &readme[end..]].concat()).expect("a writable file");
    }
    for (found, expected) in readme[start..end].lines().zip(listed.lines()) {
        assert_eq!(found, expected, "write it in src/config/file/schema, then BLESS=1");
    }
    assert_eq!(readme[start..end].lines().count(), listed.lines().count());
    assert!(!bless, "the table has been written anew: read it, then run without BLESS");
}
