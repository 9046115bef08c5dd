#![allow(clippy::unwrap_used)]
use super::*;

fn broken_at(bytes: &[u8]) -> Option<usize> {
    Walker::new().walk(bytes)
}

#[test]
fn smoke() {
    assert_eq!(broken_at(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
}
