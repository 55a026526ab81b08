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

/// The duration that JSON of a protocol buffer writes: a number of seconds and `s`.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if plain(whole) && plain(fraction) && fraction.len() <= 9 { parse(text) } else { None }
}

/// A duration in the spelling of Go: `1h30m`, `1.5s`, `250ms`.
pub(super) fn written(duration: Duration) -> String {
    if duration.is_zero() {
        return "0".to_owned();
    }
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        let (number, unit) = match nanos {
            ..1_000 => (f64::from(nanos), "ns"),
            1_000..1_000_000 => (f64::from(nanos) / 1e3, "us"),
            1_000_000.. => (f64::from(nanos) / 1e6, "ms"),
        };
        return format!("{number}{unit}");
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    let parts = [
        (hours > 0).then(|| format!("{hours}h")),
        (minutes > 0).then(|| format!("{minutes}m")),
        match (rest, fraction) {
            (0, "") => None,
            (_, "") => Some(format!("{rest}s")),
            _ => Some(format!("{rest}.{fraction}s")),
        },
    ];
    parts.into_iter().flatten().collect()
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
    fn a_duration_is_written_as_it_is_read() {
        for text in ["0", "1ns", "1.5us", "250ms", "1s", "1.5s", "5m", "1h30m", "26h0.5s", "1m0.000000001s"] {
            let duration = parse(text).unwrap();
            assert_eq!(parse(&written(duration)), Some(duration), "{text}");
        }
        assert_eq!(written(Duration::from_secs(5400)), "1h30m");
        assert_eq!(written(Duration::from_millis(1500)), "1.5s");
    }

    #[test]
    fn a_protocol_buffer_counts_in_seconds_alone() {
        assert_eq!(seconds("60s"), Some(Duration::from_secs(60)));
        assert_eq!(seconds("0.5s"), Some(Duration::from_millis(500)));
        for text in ["1m", "500ms", "60", "1m30s", "-1s", "s", ".5s", "1.s", "1.0000000001s", "1h60s", ""] {
            assert_eq!(seconds(text), None, "{text}");
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
