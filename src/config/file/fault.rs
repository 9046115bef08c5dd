//! What is wrong with a file, as operators read it.
use std::fmt;

/// One fault, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named to the reader.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
    pub(super) excerpt: Option<Excerpt>,
}

/// The source line, secrets blanked, with what is underlined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub line: String,
    /// White space as wide as what stands before the underlined part.
    pub lead: String,
    /// Characters underlined, at least 1.
    pub width: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        match &self.excerpt {
            Some(excerpt) => {
                let number = self.line.to_string();
                let gutter = " ".repeat(number.len());
                writeln!(f, "{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{number} | {}", excerpt.line)?;
                writeln!(f, "{gutter} | {}{}", excerpt.lead, "^".repeat(excerpt.width))?;
                if let Some(help) = &self.help {
                    writeln!(f, "{gutter} = help: {help}")?;
                }
            }
            None => {
                writeln!(f, " --> {}", self.file)?;
                if let Some(help) = &self.help {
                    writeln!(f, "  = help: {help}")?;
                }
            }
        }
        Ok(())
    }
}

/// All faults of a file: first those of the file as a whole, then by their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The faults.
    pub list: Vec<Fault>,
}

impl Faults {
    pub(super) fn of_file(name: &str, message: String) -> Faults {
        let fault = Fault {
            file: name.to_owned(),
            line: 0,
            column: 0,
            message: format!("the file {message}"),
            help: None,
            excerpt: None,
        };
        Faults { list: vec![fault] }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.list {
            writeln!(f, "{fault}")?;
        }
        let file = self.list.first().map_or("", |fault| &fault.file);
        match self.list.len() {
            1 => write!(f, "{file}: 1 fault"),
            n => write!(f, "{file}: {n} faults"),
        }
    }
}

impl std::error::Error for Faults {}
