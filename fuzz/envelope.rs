//! `wsgate::rooms::protocol::read` held against a reader of JSON that shares nothing with it. Used by the fuzz target and,
//! over the corpus, by `tests/rooms_envelope.rs`.
use wsgate::rooms::protocol::{self, NAME_MAX, Payload, is_nested_deeper};

/// Deeper texts are read, but not compared: the reader here calls itself.
const DEPTH_MAX: usize = 200;

/// A value of JSON (RFC 8259). Strings are `None` where they hold half of a surrogate pair, which no `str` can.
#[derive(Debug)]
enum Json<'a> {
    Null,
    Other,
    String(Option<String>),
    Array(Vec<Json<'a>>),
    /// Name, value, and the value's text.
    Object(Vec<(Option<String>, Json<'a>, &'a str)>),
}

struct Text<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    too_deep: bool,
}

impl<'a> Text<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(wanted.as_bytes()).then(|| self.at += wanted.len())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn value(&mut self) -> Option<Json<'a>> {
        match self.peek()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b't' => self.take("true").map(|()| Json::Other),
            b'f' => self.take("false").map(|()| Json::Other),
            b'"' => self.string().map(Json::String),
            b'[' => self.array(),
            b'{' => self.object(),
            _ => self.number().map(|()| Json::Other),
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()?;
        }
        Some(())
    }

    fn array(&mut self) -> Option<Json<'a>> {
        let mut items = Vec::new();
        self.list("[", "]", |text| {
            items.push(text.value()?);
            Some(())
        })?;
        Some(Json::Array(items))
    }

    fn object(&mut self) -> Option<Json<'a>> {
        let mut members = Vec::new();
        self.list("{", "}", |text| {
            let name = text.string()?;
            text.space();
            text.take(":")?;
            text.space();
            let start = text.at;
            let value = text.value()?;
            members.push((name, value, &text.text[start..text.at]));
            Some(())
        })?;
        Some(Json::Object(members))
    }

    fn list(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.too_deep = true;
            return None;
        }
        self.space();
        let mut ended = self.take(close).is_some();
        while !ended {
            self.space();
            item(self)?;
            self.space();
            ended = self.take(close).is_some();
            if !ended {
                self.take(",")?;
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn string(&mut self) -> Option<Option<String>> {
        self.take("\"")?;
        let (mut units, mut chunk) = (Vec::new(), self.at);
        loop {
            match self.peek()? {
                b'"' => {
                    units.extend(self.text[chunk..self.at].encode_utf16());
                    self.at += 1;
                    return Some(String::from_utf16(&units).ok());
                }
                b'\\' => {
                    units.extend(self.text[chunk..self.at].encode_utf16());
                    self.at += 1;
                    units.push(self.escape()?);
                    chunk = self.at;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Option<u16> {
        let escape = self.peek()?;
        self.at += 1;
        Some(match escape {
            b'"' | b'\\' | b'/' => escape.into(),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                self.at += 4;
                let hex = |unit: u16, b: &u8| Some(unit * 16 + char::from(*b).to_digit(16)? as u16);
                digits.iter().try_fold(0, hex)?
            }
            _ => return None,
        })
    }
}

/// The text's value, `None` where it is no JSON; or that it is too deep.
fn parse(text: &str) -> Result<Option<Json<'_>>, TooDeep> {
    let mut reader = Text { text, at: 0, depth: 0, too_deep: false };
    reader.space();
    let value = reader.value();
    reader.space();
    if reader.too_deep {
        return Err(TooDeep);
    }
    Ok(value.filter(|_| reader.at == text.len()))
}

struct TooDeep;

fn depth(value: &Json<'_>) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.iter().map(|(_, value, _)| depth(value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// A member of an object: its value, and that one's text.
type Member<'v, 'a> = Option<(&'v Json<'a>, &'a str)>;

/// The members of an object that have these names, each at most once; `None` where it is no such object.
fn members<'v, 'a, const N: usize>(value: &'v Json<'a>, names: [&str; N]) -> Option<[Member<'v, 'a>; N]> {
    let Json::Object(members) = value else { return None };
    let mut found = [None; N];
    for (name, value, text) in members {
        let name = name.as_deref()?;
        let Some(place) = names.iter().position(|known| *known == name) else { continue };
        if found[place].replace((value, *text)).is_some() {
            return None;
        }
    }
    Some(found)
}

fn string<'v>(member: Member<'v, '_>) -> Option<&'v str> {
    match member {
        Some((Json::String(text), _)) => text.as_deref(),
        _ => None,
    }
}

fn name<'v>(member: Member<'v, '_>) -> Option<&'v str> {
    string(member).filter(|name| (1..=NAME_MAX).contains(&name.len()))
}

fn number(member: Member<'_, '_>) -> Option<u64> {
    member.and_then(|(_, text)| text.parse().ok())
}

/// `Some(None)`: it is missing or null, and may be.
fn optional<'v, 'a, T>(member: Member<'v, 'a>, read: impl FnOnce(Member<'v, 'a>) -> Option<T>) -> Option<Option<T>> {
    match member {
        None | Some((Json::Null, _)) => Some(None),
        member => read(member).map(Some),
    }
}

/// What `read` must make of a text: its type, its `message_id`, and the members of its payload.
struct Expected<'v, 'a> {
    kind: &'v str,
    message_id: Option<&'v str>,
    payload: [Member<'v, 'a>; 9],
}

const PAYLOAD: [&str; 9] = ["token", "room_id", "message", "limit", "after", "since", "offset", "status", "client_ids"];

fn expected<'v, 'a>(value: &'v Json<'a>) -> Option<Expected<'v, 'a>> {
    let [kind, payload, metadata] = members(value, ["type", "payload", "metadata"])?;
    let payload = optional(payload, |member| members(member?.0, PAYLOAD))?;
    let metadata = optional(metadata, |member| members(member?.0, ["message_id"]))?;
    let message_id = optional(metadata.and_then(|[id]| id), name)?;
    Some(Expected { kind: string(kind)?, message_id, payload: payload.unwrap_or_default() })
}

/// Reads a text, and every field of its payload. Panics where anything is not as it must be.
pub fn check(text: &str) {
    let read = protocol::read(text);
    if let Ok(request) = &read {
        accessors(&request.payload);
    }
    let Ok(value) = parse(text) else { return };
    let wanted = value.as_ref().and_then(expected);
    match (&read, &wanted) {
        (Ok(request), Some(wanted)) => {
            assert_eq!((&*request.kind, request.message_id.as_deref()), (wanted.kind, wanted.message_id), "{text}");
            compare(text, &request.payload, &wanted.payload);
        }
        (Err(fault), None) => {
            assert!(!fault.message.is_empty() && fault.message.len() < 200, "{text}: {}", fault.message);
            assert!(fault.message_id.as_ref().is_none_or(|id| (1..=NAME_MAX).contains(&id.len())), "{text}");
        }
        (Ok(_), None) => panic!("taken: {text}"),
        (Err(fault), Some(_)) => panic!("not taken: {text}: {}", fault.message),
    }
    // It takes fewer texts: none with numbers beyond an f64.
    let known: Result<serde_json::Value, _> = serde_json::from_str(text);
    assert!(known.is_err() || value.is_some(), "the reader here is wrong: {text}");
    if let Some(value) = &value {
        let depth = depth(value);
        for most in [0, 1, 2, 64, depth.saturating_sub(1), depth, depth + 1] {
            assert_eq!(is_nested_deeper(text, most), depth > most, "{most}: {text}");
        }
    }
}

/// Calls them all. What they say is compared where the text is not too deep.
fn accessors(payload: &Payload) {
    let faults = [
        payload.token().err(),
        payload.room_id().err(),
        payload.room_id_if_any().err(),
        payload.message().err(),
        payload.limit().err(),
        payload.after().err(),
        payload.since().err(),
        payload.offset().err(),
        payload.status().err(),
        payload.client_ids().err(),
    ];
    for fault in faults.into_iter().flatten() {
        assert!(fault.contains("\"payload.") && fault.len() < 200, "{fault}");
    }
}

fn compare(text: &str, payload: &Payload, wanted: &[Member<'_, '_>; 9]) {
    let [token, room, message, limit, after, since, offset, status, clients] = *wanted;
    assert_eq!(payload.token().ok().as_deref(), string(token), "{text}");
    let a_room = |member| string(member).filter(|name| protocol::is_room_name(name));
    let room = optional(room, a_room);
    let found = payload.room_id_if_any().ok();
    assert_eq!(found.as_ref().map(Option::as_deref), room, "{text}");
    assert_eq!(payload.room_id().ok().as_deref(), room.flatten(), "{text}");
    let limit = optional(limit, |member| number(member).filter(|limit| *limit > 0));
    assert_eq!(payload.limit().ok(), limit.map(|limit| limit.unwrap_or(1000).min(1000) as usize), "{text}");
    assert_eq!(payload.after().ok().as_ref().map(Option::as_deref), optional(after, name), "{text}");
    assert_eq!(payload.offset().ok(), number(offset), "{text}");
    let place = |member: Member<'_, '_>| {
        let [epoch, offset] = members(member?.0, ["epoch", "offset"])?;
        Some((string(epoch)?.to_owned(), number(offset)?))
    };
    let found = payload.since().ok().map(|since| since.map(|since| (since.epoch.to_string(), since.offset)));
    assert_eq!(found, optional(since, place), "{text}");
    let a_status =
        |text: &&str| (1..=64).contains(&text.len()) && *text != "offline" && !text.chars().any(char::is_control);
    let found = payload.status().ok();
    assert_eq!(found.as_ref().map(|status| status.as_str()), string(status).filter(a_status), "{text}");
    compare_clients(text, payload, clients);
    compare_message(text, payload, message);
}

fn compare_clients(text: &str, payload: &Payload, clients: Member<'_, '_>) {
    let names = |member: Member<'_, '_>| {
        let Some((Json::Array(items), _)) = member else { return None };
        let names: Option<Vec<&str>> = items.iter().map(|item| name(Some((item, "")))).collect();
        let mut known = Vec::new();
        for name in names.filter(|names| (1..=100).contains(&names.len()))? {
            if !known.contains(&name.to_owned()) {
                known.push(name.to_owned());
            }
        }
        Some(known)
    };
    let found = payload.client_ids().ok();
    let found = found.map(|names| names.map(|names| names.iter().map(|name| name.to_string()).collect()));
    assert_eq!(found, optional(clients, names), "{text}");
}

/// A message is kept as it came: the very bytes of the text, which are JSON by themselves.
fn compare_message(text: &str, payload: &Payload, message: Member<'_, '_>) {
    let Ok(kept) = payload.message() else {
        return assert!(message.is_none_or(|(_, text)| is_nested_deeper(text, 64)), "{text}");
    };
    let (_, wanted) = message.unwrap_or_else(|| panic!("a message from nowhere: {text}"));
    assert!(!is_nested_deeper(wanted, 64), "{text}");
    assert_eq!(kept.get(), wanted, "{text}");
    assert!(text.as_bytes().as_ptr_range().contains(&kept.get().as_ptr()), "a copy: {text}");
    assert!(matches!(parse(kept.get()), Ok(Some(_))), "{text}");
}
