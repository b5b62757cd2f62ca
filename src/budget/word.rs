//! Budgets as people write them: `size=0.4`, `size=3MB`, `drop=2`, `sqnr=20`, `speedup=1.8`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::{Budget, Size};

/// Units of a size, and their bytes; those that end as another one does stand before it.
const UNITS: [(&str, f64); 6] = [
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        let number = |unit: &str| {
            let digits = value.strip_suffix(unit).unwrap_or(value);
            digits.parse::<f64>().ok().filter(|it| it.is_finite())
        };
        match kind {
            "size" => size(value).map(Budget::Size),
            "drop" => number("%")
                .filter(|points| (0.0..100.0).contains(points))
                .map(Budget::Drop)
                .ok_or_else(|| "drop wants points of top-1 agreement, from 0 to 100: drop=2".into()),
            "sqnr" => number("dB")
                .map(Budget::Sqnr)
                .ok_or_else(|| "sqnr wants dB: sqnr=20".into()),
            "speedup" => number("x")
                .filter(|ratio| *ratio > 1.0)
                .map(Budget::Speedup)
                .ok_or_else(|| "speedup wants a ratio above 1: speedup=1.8".into()),
            _ => Err("give size=0.4 (of the float file), size=3MB, drop=2 (points of top-1 agreement), sqnr=20 (dB) or speedup=1.8".into()),
        }
    }
}

fn size(value: &str) -> Result<Size, String> {
    let positive = |digits: &str| {
        let number = digits.trim().parse::<f64>().ok();
        number.filter(|it| it.is_finite() && *it > 0.0)
    };
    let fraction = |digits: &str, whole: f64| {
        let part = positive(digits)? / whole;
        (part <= 1.0).then_some(Size::Fraction(part))
    };
    let with_unit = UNITS.iter().find_map(|(unit, bytes)| {
        let count = positive(value.strip_suffix(unit)?)?;
        Some(Size::Bytes((count * bytes) as u64))
    });
    let percent = || fraction(value.strip_suffix('%')?, 100.0);
    with_unit
        .or_else(percent)
        .or_else(|| fraction(value, 1.0))
        .ok_or_else(|| {
            "size wants a part of the float file, as in size=0.4 or size=40%, or bytes with their unit, as in size=3MB".into()
        })
}

impl Display for Budget {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Size(Size::Fraction(part)) => write!(f, "size={part}"),
            Budget::Size(Size::Bytes(bytes)) => write!(f, "size={bytes}B"),
            Budget::Drop(points) => write!(f, "drop={points}"),
            Budget::Sqnr(db) => write!(f, "sqnr={db}"),
            Budget::Speedup(ratio) => write!(f, "speedup={ratio}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_with_their_units() {
        for (text, expected) in [
            ("size=0.4", Budget::Size(Size::Fraction(0.4))),
            ("size=40%", Budget::Size(Size::Fraction(0.4))),
            ("size=3MB", Budget::Size(Size::Bytes(3_000_000))),
            ("size=1.5MiB", Budget::Size(Size::Bytes(1_572_864))),
            ("size=70kB", Budget::Size(Size::Bytes(70_000))),
            ("size=123B", Budget::Size(Size::Bytes(123))),
            ("drop=2", Budget::Drop(2.0)),
            ("drop=0.5%", Budget::Drop(0.5)),
            ("sqnr=20", Budget::Sqnr(20.0)),
            ("sqnr=19.5dB", Budget::Sqnr(19.5)),
            ("speedup=1.8", Budget::Speedup(1.8)),
            ("speedup=2x", Budget::Speedup(2.0)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            let said = expected.to_string();
            assert_eq!(said.parse(), Ok(expected), "{said}");
        }
    }

    #[test]
    fn what_is_no_budget_is_refused_with_an_example() {
        for (text, example) in [
            ("", "size=0.4"),
            ("4MB", "size=0.4"),
            ("size", "size=3MB"),
            ("size=4", "size=3MB"),
            ("size=-1MB", "size=3MB"),
            ("size=0", "size=3MB"),
            ("size=nan", "size=3MB"),
            ("drop=-1", "drop=2"),
            ("drop=1dB", "drop=2"),
            ("sqnr=inf", "sqnr=20"),
            ("speedup=1", "speedup=1.8"),
            ("speedup=fast", "speedup=1.8"),
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.contains(example), "{text}: {error}");
        }
    }
}
