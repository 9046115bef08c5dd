//! The configuration as a JSON Schema (draft 2020-12), of words that older drafts have too: editors follow those.
use super::key::{Key, Kind, Preset};
use super::{SECTIONS, Section};
use serde_json::{Map, Value, json};

/// The whole of it.
pub(in super::super) fn document() -> Value {
    let mut document = table(&SECTIONS[0]);
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    document["title"] = "wsgate".into();
    document
}

fn table(section: &Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys() {
        let mut property = property(section, key);
        // What is borrowed starts from the table that it is borrowed from.
        if let Some(preset) = key.preset_json().filter(|_| section.own.iter().any(|own| own.name == key.name)) {
            property["default"] = preset;
        }
        properties.insert(key.name.to_owned(), property);
    }
    let is_required = |key: &&Key| matches!(key.preset, Preset::Required);
    let required: Vec<&str> = section.own.iter().filter(is_required).map(|key| key.name).collect();
    json!({
        "type": "object", "description": described(section),
        "properties": properties, "required": required, "additionalProperties": false,
    })
}

fn property(section: &Section, key: &Key) -> Value {
    let path = if section.name.is_empty() { key.name.to_owned() } else { format!("{}.{}", section.name, key.name) };
    let mut schema = key.kind.schema();
    schema["description"] = match key.kind {
        Kind::Table => return table(Section::named(&path)),
        Kind::Tables(_) => {
            let section = Section::named(&path);
            schema["items"] = table(section);
            described(section)
        }
        Kind::Named(_) => {
            schema["additionalProperties"] = table(Section::named(&format!("{path}.NAME")));
            described(Section::named(&path))
        }
        Kind::Flag | Kind::Number(..) | Kind::Words(_) | Kind::Text(_) => with_preset(key.about, key.preset.prose()),
        Kind::OneOrList(..) | Kind::List(..) | Kind::Texts(..) => with_preset(key.about, key.preset.prose()),
        // Their bounds are no words of JSON Schema.
        Kind::Duration(..) | Kind::DurationOrZero(..) | Kind::Size(..) => {
            with_preset(&format!("{}: {}", key.kind.label(), key.about), key.preset.prose())
        }
    };
    schema
}

fn described(section: &Section) -> Value {
    with_preset(section.about, section.preset)
}

fn with_preset(about: &str, preset: &str) -> Value {
    if preset.is_empty() { about.into() } else { format!("{about}. Without it: {preset}").into() }
}
