//! Durations and sizes as they are written.
use super::report::Complaint;
use std::time::Duration;

/// `"500ms"`, `"10s"`, `"5m"`, `"1h"` or `"1d"`.
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    let (number, unit) = split(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad_duration()),
    };
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err(bad_duration()),
        Err(_) => return Err(Complaint::new("this duration is too long")),
    };
    let millis = number.checked_mul(millis).ok_or_else(|| Complaint::new("this duration is too long"))?;
    Ok(Duration::from_millis(millis))
}

/// What is said of anything that is no duration.
pub(super) fn bad_duration() -> Complaint {
    Complaint::new("this is not a duration")
        .help(r#"a duration is a whole number and a unit: "500ms", "10s", "5m", "1h", "1d""#)
}

/// `"64KiB"`, `"1MiB"` or `"1GiB"`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, Complaint> {
    let (number, unit) = split(text);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(bad_size()),
    };
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err(bad_size()),
        Err(_) => return Err(Complaint::new("this size is too large")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| Complaint::new("this size is too large"))
}

/// What is said of anything that is no size.
pub(super) fn bad_size() -> Complaint {
    Complaint::new("this is not a size")
        .help(r#"a size is "64KiB", "1MiB", "1GiB" or a number of bytes without quotes"#)
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// A duration as a file would have it.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// A size as a file would have it.
pub(super) fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("\"{}{unit}\"", bytes >> shift);
        }
    }
    bytes.to_string()
}
