//! Numbers as people read them: units fixed by the metric, three significant digits, thousands separated.

use crate::schema::{IntervalKind, Ratio};
use crate::stats;

/// A value in its metric's unit: `6.81 GiB`, `38.1 ns`, `1.23 s`, `12,004`, `3.1x`.
pub fn value(unit: &str, v: f64) -> String {
    match unit {
        "bytes" => bytes(v),
        "ns" => nanoseconds(v),
        "s" => seconds(v),
        "count" => count(v),
        "ratio" => format!(
            "{}x",
            if v < 100.0 {
                format!("{v:.1}")
            } else {
                format!("{v:.0}")
            }
        ),
        "share" => percent_of(v),
        "1/s" => format!("{}/s", count(v)),
        "1" => significant(v),
        other => format!("{} {other}", significant(v)),
    }
}

/// A share as percent: `6.2 %`.
fn percent_of(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Seconds between two instants as RFC 3339 writes them in UTC; absent for anything else.
pub fn seconds_between(start: &str, end: &str) -> Option<u64> {
    let read = |text: &str| {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        // Days since 1970 of a date in the proleptic Gregorian calendar, years beginning in March.
        let (year, month) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        let days =
            365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
        Some(days * 86_400 + hour * 3600 + minute * 60 + second)
    };
    u64::try_from(read(end)? - read(start)?).ok()
}

/// `7m41s`, `1h02m`, `9s`.
pub fn elapsed(seconds: u64) -> String {
    match seconds {
        s if s >= 3600 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{s}s"),
    }
}

/// Three significant digits, never scientific.
pub fn significant(v: f64) -> String {
    let a = v.abs();
    if a >= 1000.0 {
        grouped(v)
    } else if a >= 99.95 {
        format!("{v:.0}")
    } else if a >= 9.995 {
        format!("{v:.1}")
    } else if a >= 0.1 || a == 0.0 {
        format!("{v:.2}")
    } else {
        format!("{v:.4}")
    }
}

/// `344 KiB`, `61.0 MiB`, `6.81 GiB`.
pub fn bytes(v: f64) -> String {
    let a = v.abs();
    let (scale, unit) = if a >= 1_073_741_824.0 * 0.9995 {
        (1_073_741_824.0, "GiB")
    } else if a >= 1_048_576.0 * 0.9995 {
        (1_048_576.0, "MiB")
    } else if a >= 1024.0 * 0.9995 {
        (1024.0, "KiB")
    } else {
        return format!("{v:.0} B");
    };
    format!("{} {unit}", significant(v / scale))
}

/// `12.3 ns`, `2.1 us`, `1.20 ms`, `3.00 s`.
pub fn nanoseconds(v: f64) -> String {
    let a = v.abs();
    if a < 999.5 {
        format!("{} ns", significant(v))
    } else if a < 999_500.0 {
        format!("{} us", significant(v / 1e3))
    } else if a < 999_500_000.0 {
        format!("{} ms", significant(v / 1e6))
    } else {
        format!("{} s", significant(v / 1e9))
    }
}

/// A tick of a logarithmic time axis: `10 ns`, `1 us`.
pub fn nanoseconds_short(v: f64) -> String {
    let text = nanoseconds(v);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!(
                "{} {unit}",
                number.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => text,
    }
}

/// `12.3 ms`, `1.23 s`.
pub fn seconds(v: f64) -> String {
    if v.abs() < 0.9995 {
        format!("{} ms", significant(v * 1e3))
    } else {
        format!("{} s", significant(v))
    }
}

/// `12,004`, `81.2 M`, `3.10 G`.
pub fn count(v: f64) -> String {
    let a = v.abs();
    if a < 9_999_999.5 {
        if v.fract() == 0.0 || a >= 100.0 {
            grouped(v)
        } else {
            significant(v)
        }
    } else if a < 999_500_000.0 {
        format!("{} M", significant(v / 1e6))
    } else {
        format!("{} G", significant(v / 1e9))
    }
}

/// `1 block`, `12,004 blocks`.
pub fn counted(v: f64, noun: &str) -> String {
    let v = v.round();
    let end = if v == 1.0 { "" } else { "s" };
    format!("{} {noun}{end}", count(v))
}

/// Whole number with thousands separated by commas.
pub fn grouped(v: f64) -> String {
    let digits = format!("{:.0}", v.abs());
    let mut text = String::new();
    if v < -0.5 {
        text.push('-');
    }
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A ratio as a signed change: `-58 %`, `+0.9 %`.
pub fn change(ratio: f64) -> String {
    format!("{} %", change_number(ratio))
}

fn change_number(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    if percent.abs() < 0.05 {
        "0".to_owned()
    } else if percent.abs() < 9.95 {
        format!("{percent:+.1}")
    } else if percent.abs() < 1000.0 {
        format!("{percent:+.0}")
    } else {
        format!("+{}", grouped(percent))
    }
}

/// Change with its ends: `-58 % [-61,-55]`, or `-58 % (range -61..-55)` below six pairs.
pub fn change_with_ends(ratio: &Ratio) -> String {
    let (low, high) = (change_number(ratio.low), change_number(ratio.high));
    match stats::ratio_kind(ratio) {
        IntervalKind::Ci95 => format!("{} [{low},{high}]", change(ratio.median)),
        IntervalKind::Range if ratio.pairs == 1 => format!("{} (1 block)", change(ratio.median)),
        IntervalKind::Range => format!("{} (range {low}..{high})", change(ratio.median)),
    }
}

/// A fraction as percent: `2.8 %`.
pub fn percent(fraction: f64) -> String {
    let p = fraction * 100.0;
    if p < 0.05 {
        "0.1 %".to_owned()
    } else if p < 9.95 {
        format!("{p:.1} %")
    } else {
        format!("{p:.0} %")
    }
}

/// Text that is safe as one part of a file name.
pub fn file_stem(text: &str) -> String {
    let mut stem: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    while stem.starts_with('.') {
        stem.remove(0);
    }
    stem.truncate(120);
    if stem.is_empty() {
        "unnamed".to_owned()
    } else {
        stem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(7_312_181_985.0), "6.81 GiB");
        assert_eq!(bytes(352_256.0), "344 KiB");
        assert_eq!(counted(1.2, "block"), "1 block");
        assert_eq!(counted(12_004.0, "block"), "12,004 blocks");
        assert_eq!(counted(0.0, "block"), "0 blocks");
        assert_eq!(bytes(1_048_575.0), "1.00 MiB");
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(value("ns", 38.12), "38.1 ns");
        assert_eq!(value("ns", 2100.0), "2.10 us");
        assert_eq!(value("count", 12_004.0), "12,004");
        assert_eq!(value("count", 81_200_000.0), "81.2 M");
        assert_eq!(value("ratio", 3.12), "3.1x");
        assert_eq!(value("share", 0.0624), "6.2 %");
        assert_eq!(value("s", 0.0123), "12.3 ms");
        assert_eq!(grouped(-1_204_331.0), "-1,204,331");
        assert_eq!(significant(99.97), "100");
    }

    #[test]
    fn times_between_instants() {
        let between = |a: &str, b: &str| seconds_between(a, b).map(elapsed);
        let text = between("2024-02-28T23:59:50Z", "2024-03-01T00:07:31Z");
        assert_eq!(text.as_deref(), Some("24h07m"));
        let text = between("2026-12-31T23:59:50Z", "2027-01-01T00:07:31Z");
        assert_eq!(text.as_deref(), Some("7m41s"));
        assert_eq!(between("", "2026-01-01T00:00:00Z"), None);
        assert_eq!(elapsed(9), "9s");
    }

    #[test]
    fn changes_carry_sign_and_kind() {
        let r = |pairs| Ratio {
            median: 0.42,
            low: 0.39,
            high: 1.002,
            pairs,
        };
        assert_eq!(change_with_ends(&r(8)), "-58 % [-61,+0.2]");
        assert_eq!(change_with_ends(&r(3)), "-58 % (range -61..+0.2)");
        assert_eq!(change(1.0001), "0 %");
        assert_eq!(change(1.31), "+31 %");
    }

    #[test]
    fn names_of_files_are_safe() {
        assert_eq!(file_stem("../a b/c"), "-a-b-c");
        assert_eq!(file_stem(""), "unnamed");
    }
}
