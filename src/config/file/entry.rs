//! A key of the document with its value, read as what it should be.
use super::report::{Complaint, Place, Report};
use super::schema::{self, Section};
use super::table::Table;
use super::units;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeValue};

/// A key with its value, or one value of a list.
#[derive(Clone)]
pub(super) struct Entry<'d> {
    report: &'d Report,
    key: &'d str,
    key_place: Place,
    place: Place,
    value: &'d DeValue<'d>,
}

impl<'d> Entry<'d> {
    /// A key of a table, with its value.
    pub fn new(report: &'d Report, key: &'d Spanned<DeString<'d>>, value: &'d Spanned<DeValue<'d>>) -> Entry<'d> {
        let (key, key_place) = (key.get_ref(), key.span());
        Entry { report, key, key_place, place: value.span(), value: value.get_ref() }
    }

    /// The key.
    pub fn key(&self) -> &'d str {
        self.key
    }

    /// Where faults go.
    pub fn report(&self) -> &'d Report {
        self.report
    }

    /// The place of the key.
    pub fn key_place(&self) -> Place {
        self.key_place.clone()
    }

    /// The place of the value.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Notes a fault of the value.
    pub fn complain(&self, complaint: Complaint) {
        self.report.fault(self.place(), complaint);
    }

    /// Notes that what the value names is not there.
    pub fn complain_of_absence(&self, complaint: Complaint) {
        self.report.absence(Some(self.place()), complaint);
    }

    /// Notes that the feature of this key comes later.
    pub fn refuse(&self) {
        let message = format!("`{}` is not supported yet", self.key);
        self.report.fault(self.key_place(), Complaint::new(message));
    }

    fn mismatch(&self, wanted: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.complain(Complaint::new(format!("`{}` must be {wanted}, not {found}", printable(self.key))));
    }

    /// Text.
    pub fn text(&self) -> Option<&'d str> {
        let DeValue::String(text) = self.value else {
            self.mismatch("a string");
            return None;
        };
        Some(text)
    }

    /// Text, made into what it stands for.
    pub fn convert<T>(&self, read: impl FnOnce(&'d str) -> Result<T, Complaint>) -> Option<T> {
        read(self.text()?).map_err(|complaint| self.complain(complaint)).ok()
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        let DeValue::Boolean(on) = self.value else {
            self.mismatch("true or false");
            return None;
        };
        Some(*on)
    }

    /// A whole number within bounds.
    pub fn number<N: TryFrom<u64>>(&self, bounds: RangeInclusive<u64>) -> Option<N> {
        if !matches!(self.value, DeValue::Integer(_)) {
            self.mismatch("a number");
            return None;
        }
        let number = self.integer().filter(|n| bounds.contains(n)).and_then(|n| N::try_from(n).ok());
        if number.is_none() {
            let (least, most) = bounds.into_inner();
            self.complain(Complaint::new(format!("`{}` must be between {least} and {most}", self.key)));
        }
        number
    }

    /// The value as an integer that is not negative.
    fn integer(&self) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else { return None };
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A duration within bounds.
    pub fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = match self.value {
            DeValue::String(text) => units::duration(text),
            _ => Err(units::bad_duration()),
        };
        let duration = duration.map_err(|complaint| self.complain(complaint)).ok()?;
        if !bounds.contains(&duration) {
            let [least, most] = [bounds.start(), bounds.end()].map(|d| units::duration_text(*d));
            self.complain(Complaint::new(format!("`{}` must be between \"{least}\" and \"{most}\"", self.key)));
            return None;
        }
        Some(duration)
    }

    /// A duration in which 0 lifts the limit: `Some(None)`.
    pub fn duration_limit(&self, bounds: RangeInclusive<Duration>) -> Option<Option<Duration>> {
        let is_zero_text = matches!(self.value, DeValue::String(t) if units::duration(t).is_ok_and(|d| d.is_zero()));
        if self.integer() == Some(0) || is_zero_text {
            return Some(None);
        }
        self.duration(bounds).map(Some)
    }

    /// A size within bounds, in bytes.
    pub fn size(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let size = match self.value {
            DeValue::String(text) => units::size(text),
            DeValue::Integer(_) => self.integer().ok_or_else(units::bad_size),
            _ => Err(units::bad_size()),
        };
        let size = size.map_err(|complaint| self.complain(complaint)).ok()?;
        if !bounds.contains(&size) {
            let [least, most] = [*bounds.start(), *bounds.end()].map(units::size_text);
            self.complain(Complaint::new(format!("`{}` must be between {least} and {most}", self.key)));
            return None;
        }
        Some(size)
    }

    /// The path of a file, relative to `folder`.
    pub fn path(&self, folder: &Path) -> Option<PathBuf> {
        self.path_of("a file", folder)
    }

    /// The path of a folder, relative to `folder`.
    pub fn folder(&self, folder: &Path) -> Option<PathBuf> {
        self.path_of("a folder", folder)
    }

    fn path_of(&self, kind: &str, folder: &Path) -> Option<PathBuf> {
        self.convert(|text| {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err(Complaint::new(format!("`{}` must be the path of {kind}", self.key)));
            }
            Ok(folder.join(text))
        })
    }

    /// One of several words; those without a meaning are not supported yet.
    pub fn choice<T: Copy>(&self, words: &[(&str, Option<T>)]) -> Option<T> {
        let text = self.text()?;
        let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) else {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help = match all.iter().find(|w| w.eq_ignore_ascii_case(text)).copied().or(schema::closest(text, &all))
            {
                Some(close) => format!("did you mean \"{close}\"?"),
                None => format!("it is one of \"{}\"", all.join("\", \"")),
            };
            self.complain(Complaint::new(format!("unknown value for `{}`", self.key)).help(help));
            return None;
        };
        if meaning.is_none() {
            self.complain(Complaint::new(format!("`{} = \"{text}\"` is not supported yet", self.key)));
        }
        *meaning
    }

    /// The values of a list, at most `most` of them.
    pub fn list(&self, most: usize) -> Option<Vec<Entry<'d>>> {
        let DeValue::Array(values) = self.value else {
            self.mismatch("a list");
            return None;
        };
        if values.len() > most {
            self.complain(Complaint::new(format!("`{}` has {} entries; at most {most}", self.key, values.len())));
            return None;
        }
        Some(values.iter().map(|value| self.part(value)).collect())
    }

    /// The values of a list; nothing is noted where it is none.
    pub fn list_quietly(&self) -> Vec<Entry<'d>> {
        self.value.as_array().into_iter().flat_map(|values| values.iter()).map(|value| self.part(value)).collect()
    }

    /// Whether the value is a list.
    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Whether the value is a table with this key.
    pub fn table_has(&self, key: &str) -> bool {
        self.value.as_table().is_some_and(|entries| entries.contains_key(key))
    }

    /// Whether the value is this text.
    pub fn is(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
    }

    fn part(&self, value: &'d Spanned<DeValue<'d>>) -> Entry<'d> {
        Entry { place: value.span(), value: value.get_ref(), ..self.clone() }
    }

    /// A table.
    pub fn table(&self, section: &str) -> Option<Table<'d>> {
        let section = Section::named(section);
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.report, section, Some(self.key_place()), entries)),
            DeValue::Array(tables) if tables.iter().any(|t| t.get_ref().is_table()) => {
                let message = format!("`{}` is one table, not several", self.key);
                self.complain(Complaint::new(message).help(format!("write {}", section.header())));
                None
            }
            _ => {
                self.mismatch("a table");
                None
            }
        }
    }

    /// The tables of an array of tables, at most 1,024.
    pub fn tables(&self, section: &str) -> Vec<Table<'d>> {
        let section = Section::named(section);
        let entries = match self.value {
            DeValue::Array(_) => self.list(1024).unwrap_or_default(),
            DeValue::Table(_) => {
                let message = format!("there may be several of `{}`", self.key);
                let help = format!("write {}, with two brackets", section.header());
                // Recovery after a header without its end makes such tables too.
                self.report.absence(Some(self.key_place()), Complaint::new(message).help(help));
                vec![self.clone()]
            }
            _ => {
                self.mismatch("a list of tables");
                vec![]
            }
        };
        let table = |entry: Entry<'d>| match entry.value {
            DeValue::Table(entries) => Some(Table::new(self.report, section, Some(entry.place), entries)),
            _ => {
                entry.mismatch("a list of tables");
                None
            }
        };
        entries.into_iter().filter_map(table).collect()
    }
}

/// A key without what a terminal would act upon.
pub(super) fn printable(key: &str) -> String {
    key.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
