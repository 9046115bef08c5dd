//! A table of the document, read key by key.
use super::entry::{Entry, printable};
use super::report::{Complaint, Place, Report};
use super::schema::{self, Section};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeTable;

/// A table, which may be missing from the file: then every key takes its default.
///
/// Making one notes its unknown keys.
#[derive(Clone)]
pub(super) struct Table<'d> {
    report: &'d Report,
    section: &'static Section,
    /// The header or the key; `None` for the top level and for missing tables.
    place: Option<Place>,
    entries: Option<&'d DeTable<'d>>,
}

impl<'d> Table<'d> {
    /// The whole document.
    pub fn root(report: &'d Report, document: &'d DeTable<'d>) -> Table<'d> {
        Table::new(report, Section::named(""), None, document)
    }

    /// A table of the document.
    pub fn new(
        report: &'d Report,
        section: &'static Section,
        place: Option<Place>,
        entries: &'d DeTable<'d>,
    ) -> Table<'d> {
        let table = Table { report, section, place, entries: Some(entries) };
        table.note_unknown();
        table
    }

    fn note_unknown(&self) {
        if self.section.is_free() {
            return;
        }
        for entry in self.iter().filter(|e| self.section.key(e.key()).is_none()) {
            let in_secretive = matches!(self.section.name, "auth" | "route.auth" | "admin" | "cluster" | "rooms.hook");
            if in_secretive && !schema::is_known(entry.key()) {
                self.report.hide(entry.place());
            }
            let place = match self.section.name {
                "" => "at the top level".to_owned(),
                _ => format!("in {}", self.section.header()),
            };
            let message = format!("unknown key `{}` {place}", printable(entry.key()));
            let help = schema::meant(entry.key(), self.section);
            self.report.fault(entry.key_place(), Complaint { message, help });
        }
    }

    /// Whether the file has it.
    pub fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Its header or key.
    pub fn place(&self) -> Option<Place> {
        self.place.clone()
    }

    /// Where faults go.
    pub fn report(&self) -> &'d Report {
        self.report
    }

    /// Its entries, ordered by their keys.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'d>> + use<'d> {
        let report = self.report;
        self.entries
            .into_iter()
            .flat_map(|entries| entries.iter())
            .map(move |(key, value)| Entry::new(report, key, value))
    }

    /// The entry of a key of its section.
    pub fn entry(&self, key: &'static str) -> Option<Entry<'d>> {
        debug_assert!(self.section.key(key).is_some(), "{key} is not in the schema of {}", self.section.name);
        self.entries?.contains_key(key).then(|| self.iter().find(|e| e.key() == key))?
    }

    /// Notes that a key is missing, unless the table is.
    pub fn missing(&self, key: &str, help: Option<&str>) {
        let message = format!("{} needs `{key}`", self.section.header());
        self.report.absence(self.place.clone(), Complaint { message, help: help.map(str::to_owned) });
    }

    /// The entry of a key that must be there; notes where it is missing.
    pub fn required(&self, key: &'static str, help: &str) -> Option<Entry<'d>> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.missing(key, Some(help));
        }
        entry
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        self.entry(key).and_then(|e| e.flag()).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub fn number<N: TryFrom<u64>>(&self, key: &'static str, bounds: RangeInclusive<u64>, default: N) -> N {
        self.entry(key).and_then(|e| e.number(bounds)).unwrap_or(default)
    }

    /// A duration within bounds.
    pub fn duration(&self, key: &'static str, bounds: RangeInclusive<Duration>, default: Duration) -> Duration {
        self.entry(key).and_then(|e| e.duration(bounds)).unwrap_or(default)
    }

    /// A duration of at most `most`; 0 needs no unit.
    pub fn duration_or_zero(&self, key: &'static str, most: Duration, default: Duration) -> Duration {
        let duration = self.entry(key).and_then(|e| e.duration_limit(Duration::ZERO..=most));
        duration.map_or(default, Option::unwrap_or_default)
    }

    /// One of several words; those without a meaning are not supported yet.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, Option<T>)], default: T) -> T {
        self.entry(key).and_then(|e| e.choice(words)).unwrap_or(default)
    }

    /// Text that passes `check`.
    pub fn checked(&self, key: &'static str, check: fn(&str) -> Result<(), Complaint>, default: &str) -> String {
        let text = self.entry(key).and_then(|e| e.convert(|text| check(text).map(|()| text.to_owned())));
        text.unwrap_or_else(|| default.to_owned())
    }

    /// A table below it, missing where the file has none.
    pub fn table(&self, key: &'static str, section: &str) -> Table<'d> {
        let missing = Table { report: self.report, section: Section::named(section), place: None, entries: None };
        self.entry(key).and_then(|e| e.table(section)).unwrap_or(missing)
    }

    /// The tables of an array of tables.
    pub fn tables(&self, key: &'static str, section: &str) -> Vec<Table<'d>> {
        self.entry(key).map(|e| e.tables(section)).unwrap_or_default()
    }

    /// Refuses a table below it that has any key.
    pub fn refuse_table(&self, key: &'static str, section: &str) {
        if let Some(entry) = self.entry(key)
            && entry.table(section).is_some_and(|t| t.iter().next().is_some())
        {
            entry.refuse();
        }
    }
}
