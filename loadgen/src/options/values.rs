//! How the values of options are read, and written into reports.

use std::time::Duration;

use crate::payload::PayloadKind;

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("is not a number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number < 1e9 => Ok(number),
        _ => Err("is not a number above 0".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| "is not a number of seconds")?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

pub(super) fn as_seconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

pub(super) fn as_text<S: serde::Serializer>(payload: &PayloadKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(payload)
}

/// A number of bytes, with or without a unit.
pub(super) fn byte_count(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1u64 << 30)];
    let unit = units.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
    let (digits, bytes) = unit.unwrap_or((text, 1));
    let count = digits.trim().parse().ok().and_then(|count: u64| count.checked_mul(bytes));
    count.filter(|count| *count > 0).ok_or_else(|| format!("`{text}` is no number of bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        let counts = ["7", "2KiB", "3 MiB", "1GiB"].map(byte_count);
        assert_eq!(counts, [Ok(7), Ok(2_048), Ok(3 << 20), Ok(1 << 30)]);
        assert!(["0", "GiB", "1GB", "-1", "99999999999GiB"].iter().all(|text| byte_count(text).is_err()));
    }
}
