//! Patterns of room names: `*` stands for any run of characters, also for none.

/// Whether `name` fits `pattern`. Takes at most time proportional to the product of their lengths.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether the pattern stands for one name only.
pub fn is_plain(pattern: &str) -> bool {
    !pattern.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, name) in [
            ("lobby", "lobby"),
            ("*", "lobby"),
            ("private-*", "private-1"),
            ("private-*", "private-"),
            ("org/*/chat", "org/7/chat"),
            ("org/*/chat", "org/a/chat/chat"),
            ("*a*b*", "xxaxxbxx"),
            ("a**", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("lobby", "lobby2"),
            ("lobby", "Lobby"),
            ("", "a"),
            ("private-*", "private"),
            ("private-*", "a-private-1"),
            ("org/*/chat", "org/7/chat2"),
            ("*a*b*", "ba"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        assert!(!fits(&"*a".repeat(64), &"a".repeat(63)));
        assert!(!fits(&format!("{}b", "*a".repeat(63)), &"a".repeat(128)));
    }
}
