//! Plain scalars by the core schema of YAML 1.2.2 (§10.3.2): null, bool, int, float, else text.

use serde_json::Number;

use super::Value;

/// What a plain scalar means.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text) {
            Some(value) => Value::Number { value, text: text.to_owned() },
            None => Value::String(text.to_owned()),
        },
    }
}

/// Whether a plain scalar is one of the floats that no JSON number can hold.
pub(super) fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let whole = text.strip_prefix('+').unwrap_or(text);
        return match (whole.parse::<u64>(), whole.parse::<i64>()) {
            (Ok(number), _) => Some(number.into()),
            (_, Ok(number)) => Some(number.into()),
            _ => Number::from_f64(text.parse().ok()?),
        };
    }
    is_float(unsigned).then(|| text.parse().ok()).flatten().and_then(Number::from_f64)
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    let known = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    known.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, the sign being gone.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        match plain(text) {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number { .. } => "number",
            Value::String(_) => "string",
            Value::List(_) | Value::Map(_) => "collection",
        }
    }

    #[test]
    fn the_core_schema_knows_null_bool_and_numbers() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(kind(text), "null", "{text}");
        }
        for text in ["true", "True", "TRUE", "false", "False", "FALSE"] {
            assert_eq!(kind(text), "bool", "{text}");
        }
        for text in ["0", "-1", "+12", "0123", "0x1F", "0o17", "1.", ".5", "-1.5e3", "1E+2", "99999999999999999999999"]
        {
            assert_eq!(kind(text), "number", "{text}");
        }
    }

    #[test]
    fn what_older_yaml_took_for_bools_times_or_numbers_is_text() {
        let texts = [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "N",
            "tRUE",
            "12:30:00",
            "1_000",
            "0b1",
            "0x",
            "0o9",
            ".",
            "-",
            "+",
            "e3",
            "1e",
            "1e+",
            "1.2.3",
            "10.0.0.0/8",
            "2026-01-01",
            "inf",
            "nan",
            "0xZZ",
            "- 1",
            "nULL",
        ];
        for text in texts {
            assert_eq!(kind(text), "string", "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_value_and_their_text() {
        let Value::Number { value, text } = plain("0x1F") else { panic!("not a number") };
        assert_eq!((value.as_u64(), text.as_str()), (Some(31), "0x1F"));
        let Value::Number { value, text } = plain("0123") else { panic!("not a number") };
        assert_eq!((value.as_u64(), text.as_str()), (Some(123), "0123"));
        let Value::Number { value, .. } = plain("-9223372036854775808") else { panic!("not a number") };
        assert_eq!(value.as_i64(), Some(i64::MIN));
    }

    #[test]
    fn infinite_floats_are_known_as_such() {
        for text in [".inf", "-.inf", "+.INF", ".nan", ".NaN"] {
            assert!(is_not_finite(text), "{text}");
        }
        assert!(!is_not_finite("-.nan"));
        assert!(!is_not_finite("inf"));
    }
}
