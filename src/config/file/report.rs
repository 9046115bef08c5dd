//! Where faults are noted while a file is read, and how they are put in order.
use super::blank;
use super::fault::{Excerpt, Fault, Faults};
use std::cell::RefCell;
use std::ops::Range;

/// A place in the text, in bytes.
pub(super) type Place = Range<usize>;

/// What is wrong with a value, before its place is known.
pub(super) struct Complaint {
    pub message: String,
    pub help: Option<String>,
}

impl Complaint {
    pub fn new(message: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Complaint {
        self.help = Some(help.into());
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syntax,
    /// Something is not there: believed only where the syntax is whole, else it may merely not
    /// have been understood.
    Absence,
    Value,
}

struct Noted {
    /// `None`: the file as a whole.
    place: Option<Place>,
    kind: Kind,
    complaint: Complaint,
}

/// The faults noted so far.
#[derive(Default)]
pub(super) struct Report {
    noted: RefCell<Vec<Noted>>,
    hidden: RefCell<Vec<Place>>,
}

impl Report {
    /// A fault of the TOML itself.
    pub fn syntax(&self, place: Option<Place>, message: &str) {
        self.note(place, Kind::Syntax, Complaint::new(message));
    }

    /// A fault of a value or key.
    pub fn fault(&self, place: Place, complaint: Complaint) {
        self.note(Some(place), Kind::Value, complaint);
    }

    /// Something that is not there.
    pub fn absence(&self, place: Option<Place>, complaint: Complaint) {
        self.note(place, Kind::Absence, complaint);
    }

    /// Keeps this part of the text out of every excerpt.
    pub fn hide(&self, place: Place) {
        self.hidden.borrow_mut().push(place);
    }

    fn note(&self, place: Option<Place>, kind: Kind, complaint: Complaint) {
        self.noted.borrow_mut().push(Noted { place, kind, complaint });
    }

    /// The faults in order; `None` where there are none.
    pub fn into_faults(self, text: &str, name: &str) -> Option<Faults> {
        let mut noted = self.noted.into_inner();
        let broken: Vec<Place> = noted
            .iter()
            .filter(|n| n.kind == Kind::Syntax)
            .map(|n| n.place.as_ref().map_or(0..text.len(), |p| lines(text, p)))
            .collect();
        noted.retain(|n| match (n.kind, &n.place) {
            (Kind::Syntax, _) => true,
            (Kind::Absence, _) => broken.is_empty(),
            (Kind::Value, Some(place)) => !broken.iter().any(|b| b.contains(&place.start)),
            (Kind::Value, None) => true,
        });
        let order = |n: &Noted| n.place.as_ref().map(|p| (p.start, p.end));
        noted.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.complaint.message.cmp(&b.complaint.message)));
        noted.dedup_by(|a, b| a.place == b.place && a.complaint.message == b.complaint.message);
        if noted.is_empty() {
            return None;
        }
        let mut hidden = blank::secrets(text);
        hidden.extend(self.hidden.into_inner());
        let list = noted.into_iter().map(|n| fault(n, text, name, &hidden)).collect();
        Some(Faults { list })
    }
}

/// The whole lines that `place` touches.
fn lines(text: &str, place: &Place) -> Place {
    let start = text.floor_char_boundary(place.start);
    let end = text.ceil_char_boundary(place.end);
    let first = text[..start].rfind('\n').map_or(0, |i| i + 1);
    let last = text[end..].find('\n').map_or(text.len(), |i| end + i);
    first..last + 1
}

fn fault(noted: Noted, text: &str, name: &str, hidden: &[Place]) -> Fault {
    let Complaint { message, help } = noted.complaint;
    let file = name.to_owned();
    let Some(place) = noted.place else {
        return Fault { file, line: 0, column: 0, message, help, excerpt: None };
    };
    let at = text.floor_char_boundary(place.start);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let line = 1 + text[..start].matches('\n').count();
    let column = 1 + text[start..at].chars().count();
    let excerpt = Some(excerpt(text, start..end, &(at..place.end.max(at)), hidden));
    Fault { file, line, column, message, help, excerpt }
}

fn excerpt(text: &str, line: Place, marked: &Place, hidden: &[Place]) -> Excerpt {
    let mut shown = Excerpt { line: String::new(), lead: String::new(), width: 0 };
    let mut in_hidden = false;
    for (i, c) in text[line.clone()].trim_end().char_indices().map(|(i, c)| (line.start + i, c)) {
        let hide = hidden.iter().any(|h| h.contains(&i));
        let piece = match c {
            _ if hide && in_hidden => String::new(),
            _ if hide => "***".to_owned(),
            '\t' => "\t".to_owned(),
            c if c.is_control() => "\u{fffd}".to_owned(),
            c => c.to_string(),
        };
        in_hidden = hide;
        if i < marked.start {
            shown.lead.extend(piece.chars().map(|c| if c == '\t' { '\t' } else { ' ' }));
        } else if i < marked.end {
            shown.width += piece.chars().count();
        }
        shown.line.push_str(&piece);
    }
    shown.width = shown.width.max(1);
    shown
}
