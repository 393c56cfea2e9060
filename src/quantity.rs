//! Durations and sizes as people type them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::isolate::MIB;

/// A length of time: `300000` or `300000ms`, `30s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let milliseconds = match unit.trim() {
            "" | "ms" => 1.0,
            "s" => 1000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            _ => 0.0,
        };
        let seconds = number.parse::<f64>().unwrap_or(0.0) * milliseconds / 1000.0;
        match Duration::try_from_secs_f64(seconds) {
            // A year is longer than anybody waits, and far from where clocks overflow.
            Ok(span) if !span.is_zero() && span <= Duration::from_secs(366 * 86_400) => Ok(Self(span)),
            _ => Err("write milliseconds, such as 300000, or a length of time such as 30s or 2m".into()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_millis())
    }
}

/// A size in MB, which here are 1,048,576 bytes: `500` or `0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Megabytes(pub f64);

impl Megabytes {
    /// In bytes.
    pub fn bytes(self) -> usize {
        (self.0 * MIB as f64) as usize
    }
}

impl FromStr for Megabytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<f64>() {
            Ok(size) if size > 0.0 && size <= 1e9 => Ok(Self(size)),
            _ => Err("write a number of megabytes above 0, such as 500".into()),
        }
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, milliseconds) in
            [("300000", 300_000), ("250ms", 250), ("30s", 30_000), ("2m", 120_000), ("1.5 s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(text.parse::<Span>().unwrap().0.as_millis(), milliseconds, "{text}");
        }
        for text in ["", "0", "-1", "5 days", "s", "1e9h", "99999999h", "NaN"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!("500".parse::<Megabytes>().unwrap().bytes(), 500 << 20);
        assert_eq!("0.5".parse::<Megabytes>().unwrap().bytes(), 512 << 10);
        for text in ["", "0", "-1", "1GB", "inf", "NaN"] {
            assert!(text.parse::<Megabytes>().is_err(), "{text}");
        }
    }
}
