//! A key: what it may hold, what holds without it, and what it means.
use super::super::units;
use serde_json::{Value, json};

/// A key of a table.
#[derive(Debug)]
pub(in super::super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub preset: Preset,
    /// Its meaning in README and in editors: a piece of a sentence, in Markdown. Of a table its section says it.
    pub about: &'static str,
}

/// What a key may hold.
#[derive(Debug)]
pub(in super::super) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number, at least and at most.
    Number(u64, u64),
    /// A duration, at least and at most, as a file has them.
    Duration(&'static str, &'static str),
    /// The same, or 0, which lifts a limit.
    DurationOrZero(&'static str, &'static str),
    /// A size in bytes, at least and at most.
    Size(u64, u64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// Text of a form.
    Text(Form),
    /// Text of a form, or a list of at least one and at most so many.
    OneOrList(Form, usize),
    /// So many of one kind, at least and at most.
    List(&'static Kind, usize, usize),
    /// A table of text with names of its own, at most so many; both have a form.
    Texts(Form, Form, usize),
    /// A table, whose section is named like its parent's, a dot and the key.
    Table,
    /// The same several times over, at least so often.
    Tables(usize),
    /// A table of tables with names of their own.
    Named(Form),
}

/// Text that a key holds. Editors know less of it than the reader does.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Form {
    /// What README calls it.
    pub label: &'static str,
    /// A regular expression (ECMA 262) that no good text fails.
    pub pattern: &'static str,
    /// Most bytes, counted as characters by editors.
    pub most: usize,
}

/// What holds where a key is missing.
#[derive(Debug)]
pub(in super::super) enum Preset {
    /// It must not be missing.
    Required,
    /// This value: text, durations and sizes without quotes, all else as JSON.
    Value(&'static str),
    /// What README says of it.
    Prose(&'static str),
}

/// A key.
pub(super) const fn key(name: &'static str, kind: Kind, preset: Preset, about: &'static str) -> Key {
    Key { name, kind, preset, about }
}

/// A key that holds a table.
pub(super) const fn table(name: &'static str) -> Key {
    key(name, Kind::Table, NONE, "")
}

/// Text with a form.
pub(super) const fn form(label: &'static str, pattern: &'static str, most: usize) -> Form {
    Form { label, pattern, most }
}

/// Nothing, where a key is missing.
pub(super) const NONE: Preset = Preset::Prose("");
/// Text that is only not empty.
pub(super) const TEXT: Form = form("text", r"^[^\x00-\x1f\x7f-\x9f]+$", 1024);
/// A name of the file's own.
pub(super) const NAME: Form = form("name (64 bytes)", "^[0-9A-Za-z._-]+$", 64);
/// A token of HTTP.
pub(super) const TOKEN: Form = form("token", "^[0-9A-Za-z!#$%&'*+.^_`|~-]+$", 128);
/// A file or a folder.
pub(super) const PATH: Form = form("path", r"^[^\x00-\x1f\x7f-\x9f]+$", 4096);
/// An environment variable.
pub(super) const VARIABLE: Form = form("name of a variable", "^[^=]+$", 1024);
/// Where something listens.
pub(super) const HOST_PORT: Form = form("`\"HOST:PORT\"`", "^.+:[0-9]{1,5}$", 320);

/// Most tables of one name.
const TABLES_MAX: u64 = 1024;
const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
const SIZE: &str = "^[0-9]+(KiB|MiB|GiB)$";

impl Key {
    /// What holds where it is missing, as JSON.
    pub fn preset_json(&self) -> Option<Value> {
        let Preset::Value(value) = self.preset else { return None };
        let is_text = match self.kind {
            Kind::Duration(..) | Kind::DurationOrZero(..) | Kind::Words(_) => true,
            Kind::Text(_) | Kind::OneOrList(..) => true,
            Kind::Size(..) => value.parse::<u64>().is_err(),
            Kind::Flag | Kind::Number(..) | Kind::List(..) | Kind::Texts(..) => false,
            Kind::Table | Kind::Tables(_) | Kind::Named(_) => false,
        };
        if is_text { Some(value.into()) } else { serde_json::from_str(value).ok() }
    }
}

impl Preset {
    /// What is said of it where it is no value.
    pub fn prose(&self) -> &'static str {
        match self {
            Preset::Required | Preset::Value(_) => "",
            Preset::Prose(text) => text,
        }
    }
}

impl Kind {
    /// What it is called in README.
    pub fn label(&self) -> String {
        match self {
            Kind::Flag => "boolean".to_owned(),
            Kind::Number(least, most) => format!("number ({} to {})", grouped(*least), grouped(*most)),
            Kind::Duration(least, most) => format!("duration ({least} to {most})"),
            Kind::DurationOrZero("0s", most) => format!("duration (0 to {most})"),
            Kind::DurationOrZero(least, most) => format!("duration ({least} to {most}), or 0"),
            Kind::Size(least, most) => {
                let [least, most] = [*least, *most].map(|n| units::size_text(n).replace('"', ""));
                format!("size ({least} to {most})")
            }
            Kind::Words(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
            Kind::Text(form) => form.label.to_owned(),
            Kind::OneOrList(form, most) => format!("{}, or a list (1 to {most})", form.label),
            Kind::List(kind, 0, most) => format!("list (up to {}): {}", grouped(*most as u64), kind.label()),
            Kind::List(kind, least, most) => format!("list ({least} to {}): {}", grouped(*most as u64), kind.label()),
            Kind::Texts(_, form, most) => format!("table (up to {most}): {}", form.label),
            Kind::Table | Kind::Named(_) => "table".to_owned(),
            Kind::Tables(0) => format!("tables (up to {})", grouped(TABLES_MAX)),
            Kind::Tables(least) => format!("tables ({least} to {})", grouped(TABLES_MAX)),
        }
    }

    /// The JSON Schema of it; of a table only that it is one.
    pub fn schema(&self) -> Value {
        match self {
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Kind::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
            Kind::DurationOrZero(..) => {
                json!({ "type": ["string", "integer"], "pattern": DURATION, "minimum": 0, "maximum": 0 })
            }
            Kind::Size(least, most) => {
                json!({ "type": ["string", "integer"], "pattern": SIZE, "minimum": least, "maximum": most })
            }
            Kind::Words(words) => json!({ "type": "string", "enum": words }),
            Kind::Text(form) => form.schema(),
            Kind::OneOrList(form, most) => {
                let mut schema = form.schema();
                schema["type"] = json!(["string", "array"]);
                schema["items"] = form.schema();
                (schema["minItems"], schema["maxItems"]) = (1.into(), (*most).into());
                schema
            }
            Kind::List(kind, least, most) => {
                json!({ "type": "array", "items": kind.schema(), "minItems": least, "maxItems": most })
            }
            Kind::Texts(names, form, most) => json!({
                "type": "object", "maxProperties": most,
                "propertyNames": names.schema(), "additionalProperties": form.schema(),
            }),
            Kind::Tables(least) => json!({ "type": "array", "minItems": least, "maxItems": TABLES_MAX }),
            Kind::Table => json!({ "type": "object" }),
            Kind::Named(names) => json!({ "type": "object", "propertyNames": names.schema() }),
        }
    }
}

impl Form {
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": self.pattern, "maxLength": self.most })
    }
}

/// A number as people read it: `10,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| str::from_utf8(g).ok()).collect();
    groups.join(",")
}
