//! The table of keys in README.
use super::key::{Key, Kind, Preset};
use super::{Borrowed, SECTIONS, Section};

/// The whole table.
pub(in super::super) fn markdown() -> String {
    let listed = |section: &&Section| !section.name.is_empty() && !section.own.is_empty();
    let rows = SECTIONS.iter().filter(listed).map(|section| {
        let header = section.header();
        let header = format!("| **`{header}`** | | {} | {} |\n", section.preset, section.about);
        let own: String = section.own.iter().filter_map(|key| row(section, key)).collect();
        header + &own + &section.borrowed.as_ref().map(borrowed).unwrap_or_default()
    });
    format!("| key | type (bounds) | default | meaning |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

/// One key; `None` where it is a table that is listed itself.
fn row(section: &Section, key: &Key) -> Option<String> {
    let value = (preset(key), key.about.to_owned());
    let (preset, about) = match key.kind {
        Kind::Table => {
            let section = Section::named(&format!("{}.{}", section.name, key.name));
            let borrowed = section.borrowed.as_ref().filter(|_| section.own.is_empty())?;
            let from = Section::named(borrowed.from);
            let all = from.keys().count() == borrowed.keys.len();
            let names = if all { "any of its keys".to_owned() } else { names(borrowed.keys) };
            (section.preset.to_owned(), format!("{}, of `{}`: {names}", section.about, from.header()))
        }
        Kind::Tables(_) | Kind::Named(_) => return None,
        Kind::Flag | Kind::Number(..) | Kind::Size(..) | Kind::Words(_) | Kind::Text(_) | Kind::Texts(..) => value,
        Kind::Duration(..) | Kind::DurationOrZero(..) | Kind::List(..) => value,
    };
    Some(format!("| `{}` | {} | {preset} | {about} |\n", key.name, key.kind.label()))
}

fn preset(key: &Key) -> String {
    match key.preset {
        Preset::Required => "required".to_owned(),
        Preset::Value(_) => key.preset_json().map(|value| format!("`{value}`")).unwrap_or_default(),
        Preset::Prose(text) => text.to_owned(),
    }
}

fn borrowed(borrowed: &Borrowed) -> String {
    let from = Section::named(borrowed.from).header();
    format!("| {} | as in `{from}` | | |\n", names(borrowed.keys))
}

fn names(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}
