//! Words that are known while their bytes come, and classes of bytes.

/// Methods that have targets of their own.
pub(super) const METHODS: &[&[u8]] = &[b"CONNECT", b"OPTIONS"];
/// What an absolute target begins with, in lower case.
pub(super) const SCHEMES: &[&[u8]] = &[b"http://", b"https://"];
/// Versions; the oldest first.
pub(super) const VERSIONS: &[&[u8]] = &[b"HTTP/1.0", b"HTTP/1.1"];
/// Fields that decide where a message ends or whom it is for, in lower case.
pub(super) const NAMES: &[&[u8]] = &[b"content-length", b"transfer-encoding", b"host", b"upgrade"];
/// The one transfer coding, in lower case.
pub(super) const CODINGS: &[&[u8]] = &[b"chunked"];

/// Which of a few words the bytes so far may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    words: &'static [&'static [u8]],
    /// One bit for each word that still fits.
    open: u8,
    /// Bytes so far; those of a long word are not counted to their end.
    length: u8,
}

impl Word {
    /// No byte of one of these words, 8 at most.
    pub(super) const fn among(words: &'static [&'static [u8]]) -> Word {
        Word { words, open: ((1_u16 << words.len()) - 1) as u8, length: 0 }
    }

    /// One more byte.
    pub(super) fn push(&mut self, byte: u8) {
        let at = usize::from(self.length);
        for (place, word) in self.words.iter().enumerate() {
            if word.get(at) != Some(&byte) {
                self.open &= !(1 << place);
            }
        }
        self.length = self.length.saturating_add(1);
    }

    /// Whether it can become none of them.
    pub(super) fn is_lost(self) -> bool {
        self.open == 0
    }

    /// Bytes so far, 255 at most.
    pub(super) fn len(self) -> u8 {
        self.length
    }

    /// The place of the word that it is now.
    pub(super) fn found(self) -> Option<usize> {
        let whole =
            |(place, word): (usize, &&[u8])| self.open & 1 << place != 0 && word.len() == usize::from(self.length);
        self.words.iter().enumerate().position(whole)
    }
}

/// Sets of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Of a field's name (RFC 9110, section 5.6.2).
    Token = 1,
    /// Of a field's value: visible, spaces, tabs, and what is not ASCII (section 5.5).
    Value = 2,
    /// Of a path, but for `%` and `?`. A backslash is a slash to some.
    Path = 4,
    /// Of a query. Browsers leave more of it unescaped than RFC 3986 allows; `#` would begin what no request has.
    Query = 8,
    /// Of a host and port; neither a user's name nor an escape.
    Authority = 16,
}

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        let value = byte as u8;
        let plain = value.is_ascii_alphanumeric();
        let visible = value.is_ascii_graphic();
        if plain || matches!(value, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~') {
            classes[byte] |= Class::Token as u8;
        }
        if visible || matches!(value, b' ' | b'\t' | 0x80..) {
            classes[byte] |= Class::Value as u8;
        }
        if visible && !matches!(value, b'"' | b'#' | b'<' | b'>') {
            classes[byte] |= Class::Query as u8;
            if !matches!(value, b'%' | b'?' | b'\\' | b'`') {
                classes[byte] |= Class::Path as u8;
            }
        }
        if plain || matches!(value, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']') {
            classes[byte] |= Class::Authority as u8;
        }
        byte += 1;
    }
    classes
};

impl Class {
    pub(super) fn has(self, byte: u8) -> bool {
        CLASSES[usize::from(byte)] & self as u8 != 0
    }

    /// How many bytes at the start are of it.
    pub(super) fn span(self, bytes: &[u8]) -> usize {
        bytes.iter().position(|byte| !self.has(*byte)).unwrap_or(bytes.len())
    }
}
