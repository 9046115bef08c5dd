//! Frames and the messages in them.

/// The frame of a server that starts at `at`, if whole: opcode and payload bounds. Server frames are unmasked.
pub fn frame_at(b: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let b0 = *b.get(at)?;
    let (len, from) = match *b.get(at + 1)? & 0x7f {
        126 => (u16::from_be_bytes(b.get(at + 2..at + 4)?.try_into().ok()?) as usize, at + 4),
        127 => (u64::from_be_bytes(b.get(at + 2..at + 10)?.try_into().ok()?) as usize, at + 10),
        n => (n as usize, at + 2),
    };
    (b.len() - from >= len).then_some((b0 & 15, from, from + len))
}

/// A masked frame, as a client must send it; the mask is fixed, which costs the server the same.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut f = header(opcode, 0x80, payload.len());
    f.extend(MASK);
    f.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i & 3]));
    f
}

/// A final frame's header without its mask; `mask_bit` is 0x80 or 0.
pub fn header(opcode: u8, mask_bit: u8, len: usize) -> Vec<u8> {
    let mut f = vec![0x80 | opcode];
    match len {
        n @ 0..=125 => f.push(mask_bit | n as u8),
        n @ 126..=65535 => {
            f.push(mask_bit | 126);
            f.extend((n as u16).to_be_bytes());
        }
        n => {
            f.push(mask_bit | 127);
            f.extend((n as u64).to_be_bytes());
        }
    }
    f
}

/// Fills in a connection's number: `{i}` becomes `i`, `{i/10}` becomes a tenth of it.
pub fn number(template: &str, i: usize) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{i") {
        let (before, mark) = rest.split_at(at);
        out += before;
        let divisor = |t: &str| t.strip_prefix("{i/")?.parse::<usize>().ok().filter(|d| *d > 0);
        let filled = mark.find('}').and_then(|end| match &mark[..end] {
            "{i" => Some((i, end + 1)),
            text => divisor(text).map(|d| (i / d, end + 1)),
        });
        let (text, used) = filled.map_or(("{i".to_string(), 2), |(n, used)| (n.to_string(), used));
        out += &text;
        rest = &mark[used..];
    }
    out + rest
}

/// Fills `{t}`, `{n}` and `{pad}`; the result is `size` bytes where there is a `{pad}`.
pub fn fill(template: &str, micros: u64, n: u64, size: usize) -> String {
    let s = template.replace("{t}", &format!("T{micros:015}")).replace("{n}", &n.to_string());
    match s.find("{pad}") {
        Some(_) => {
            let missing = size.saturating_sub(s.len() - 5);
            s.replace("{pad}", &"p".repeat(missing))
        }
        None => s,
    }
}

/// The send time that `fill` put into a message: `T` and 15 digits.
pub fn find_time(payload: &[u8]) -> Option<u64> {
    payload.windows(16).find_map(|w| {
        if w[0] != b'T' || !w[1..].iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(&w[1..]).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("a{i}b{i/10}c{id}{", 123), "a123b12c{id}{");
        assert_eq!(number("{i/0}", 1), "{i/0}");
    }

    #[test]
    fn filled() {
        let text = fill("{\"m\":\"{t}{pad}\",\"n\":{n}}", 42, 7, 64);
        assert_eq!(text.len(), 64);
        assert_eq!(find_time(text.as_bytes()), Some(42));
        assert_eq!(find_time(b"2025-01-01T00:00:00.000Z"), None);
    }

    #[test]
    fn frames() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let mut f = header(2, 0, len);
            let from = f.len();
            assert_eq!(frame_at(&f, 0).is_some(), len == 0);
            f.resize(from + len, 1);
            assert_eq!(frame_at(&f, 0), Some((2, from, from + len)));
            assert_eq!(client_frame(2, &f[from..]).len(), f.len() + 4);
        }
    }
}
