//! `server.log`: a filter of `tracing`.
use tracing_subscriber::EnvFilter;

/// Reads a filter. Stricter than `EnvFilter`, which takes "inof" for the name of a target.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // Commas within `[span{a=1,b=2}]` divide no directives.
    if text.contains('[') {
        return EnvFilter::builder().parse(text).map_err(|e| e.to_string());
    }
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    // EnvFilter takes a bare word that is no level for a target, and shows all of that and nothing
    // else: "inof" would be a gateway without logs.
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    if let Some(word) = words.iter().find(|word| !word.contains('=') && !is_level(word)) {
        return Err(format!("{word:?} is no level ({}) and no target=level", LEVELS.join(", ")));
    }
    EnvFilter::builder().parse(words.join(",")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_ones() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,wsgate::upstream=debug",
            "warn, hyper=trace",
            "",
            "info,[session{id=1}]=debug",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["inof", "info,wsgate::upstream", "wsgate=loud", "info,wsgate=debug=trace", "[=info"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
