//! The table of keys in README.
use super::key::{Key, Kind, Preset};
use super::{Borrowed, SECTIONS, Section};

/// The whole table.
pub(in super::super) fn markdown() -> String {
    let listed = |section: &&Section| !section.name.is_empty() && !section.own.is_empty();
    let rows = SECTIONS.iter().filter(listed).map(|section| {
        let header = heading(section);
        let own: String = section.own.iter().filter_map(|key| row(section, key)).collect();
        header + &own + &section.borrowed.as_ref().map(borrowed).unwrap_or_default()
    });
    format!("| key | type (bounds) | default | meaning |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

fn heading(section: &Section) -> String {
    let (parent, name) = section.name.rsplit_once('.').unwrap_or(("", section.name));
    let key = Section::named(parent).key(name);
    let kind = key.map(|key| &key.kind).filter(|kind| matches!(kind, Kind::Tables(_))).map(Kind::label);
    let preset =
        if key.is_some_and(|key| matches!(key.preset, Preset::Required)) { "required" } else { section.preset };
    format!("| **`{}`** | {} | {preset} | {} |\n", section.header(), kind.unwrap_or_default(), section.about)
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
        Kind::Duration(..) | Kind::DurationOrZero(..) | Kind::OneOrList(..) | Kind::List(..) => value,
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
