//! `wsgate schema`, judged by a validator that nobody here wrote, on the corpus of configuration files.
use crate::support::gateway::wsgate;
use crate::support::{Folder, Peer, within};
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// What a reader says of faults that a schema sees too: those of keys, types, words, numbers and forms.
const SEEN_BY_SCHEMA: [&str; 8] = [
    "unknown key",
    "unknown value",
    "` must be a ",
    "` must be true or false",
    "` must be between",
    "entries; at most",
    "is not a duration",
    "is not a size",
];

fn schema() -> String {
    let folder = Folder::new();
    let output = wsgate(&folder, &["schema"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn toml_files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let names = entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
    names.filter(|name| name.ends_with(".toml")).collect()
}

#[test]
fn a_schema_is_written_without_a_configuration() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["server"]["properties"]["shards"]["default"], 0);
}

#[tokio::test]
async fn a_validator_tells_good_files_from_bad_ones() {
    let Some(mut command) = Peer::Python.command("validate") else { return };
    let folder = Folder::new();
    folder.write("schema.json", schema());
    let good = ["gateway.toml".to_owned(), "tests/config/reference.toml".to_owned()];
    let good: Vec<String> = good.into_iter().chain(toml_files("tests/config/good")).collect();
    let bad = toml_files("tests/config/bad");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(folder.path().join("schema.json")).args(&good).args(&bad);
    let output = within(command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let found: Map<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    for file in &good {
        assert_eq!(found.get(file), Some(&Value::Null), "{file}");
    }
    let mut refused = 0;
    for (file, fault) in found.iter().filter(|(file, _)| bad.contains(*file)) {
        let messages =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("txt")).unwrap();
        let mut errors = messages.lines().filter(|line| line.starts_with("error: "));
        // Ranges of durations stand in descriptions alone.
        let seen = |line: &str| !line.contains("between \"") && SEEN_BY_SCHEMA.iter().any(|words| line.contains(words));
        if errors.any(seen) {
            assert!(fault.is_string(), "{file} is valid:\n{messages}");
            refused += 1;
        }
    }
    let all = found.values().filter(|fault| fault.is_string()).count();
    assert!(refused >= 40 && all >= 80, "only {refused} and {all} of {}", bad.len());
}
