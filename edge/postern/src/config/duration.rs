//! Durations as Go writes them: `1h30m`, `500ms`, `1.5s`.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration that `text` writes; `None` for anything that Go would not read, and for negative ones.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if matches!(text, "0" | "-0") {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (part, after) = leading(rest)?;
        nanos = nanos.checked_add(part)?;
        rest = after;
    }
    // Go counts in signed 64 bits.
    i64::try_from(nanos).ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The first `NUMBER UNIT` of `text` in nanoseconds, and what follows.
fn leading(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at_checked(end)?;
    let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    whole.checked_mul(scale)?.checked_add(part_of(fraction, scale)).map(|nanos| (nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `0.fraction` of `scale`, cut to whole nanoseconds.
fn part_of(fraction: &str, scale: u64) -> u64 {
    let mut unit = u128::from(scale) * 1_000_000_000_000;
    let mut sum = 0_u128;
    for digit in fraction.bytes().take(18) {
        unit /= 10;
        sum += unit * u128::from(digit - b'0');
    }
    u64::try_from(sum / 1_000_000_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("1ns", 1),
            ("30s", 30_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("1.s", 1_000_000_000),
            ("2\u{b5}s3us", 5_000),
            ("1h0.25s", 3_600_250_000_000),
            ("+5s", 5_000_000_000),
            ("0.000000001s", 1),
            ("2540400h", 9_145_440_000_000_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_would_not_read_is_no_duration() {
        for text in [
            "",
            "s",
            "1",
            "30",
            "-1s",
            "1d",
            "1 s",
            "1s ",
            "1:30",
            "one",
            "1e3s",
            ".",
            ".s",
            "99999999999999999999s",
            "2562048h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
