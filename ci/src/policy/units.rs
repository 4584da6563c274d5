//! Owns the two quantities a policy file speaks in: a change in percent and a size in bytes.
//!
//! Both carry their unit in the file (`"+5 %"`, `"64 KiB"`), because a bare `105` or `0.05` has
//! been misread in every gate that allowed it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A change relative to the base: `"+5 %"` in a file, `0.05` in arithmetic. Never negative: a
/// limit says how much *worse* is too much, whichever direction is worse for the metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// From a fraction (`0.05` is 5 %).
    pub const fn from_fraction(fraction: f64) -> Percent {
        Percent(fraction)
    }

    /// The fraction (5 % is `0.05`).
    pub const fn fraction(self) -> f64 {
        self.0
    }

    /// Reads `"5 %"`, `"+0.5%"`.
    ///
    /// # Errors
    /// A sentence that names the text when it has no percent sign, is no number, is negative or
    /// is above 100 % (which is nearly always a factor written by mistake).
    pub fn parse(text: &str) -> Result<Percent, String> {
        let number = text
            .trim()
            .strip_suffix('%')
            .ok_or_else(|| format!("`{text}` has no unit: write a change as \"+5 %\""))?
            .trim()
            .trim_start_matches('+');
        let value: f64 = number
            .parse()
            .map_err(|_| format!("`{text}` is not a percentage: write a change as \"+5 %\""))?;
        if !value.is_finite() || !(0.0..=100.0).contains(&value) {
            return Err(format!(
                "`{text}` is outside 0 % to 100 %: a limit is the change allowed, not a factor"
            ));
        }
        Ok(Percent(value / 100.0))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded so that 0.05 prints as 5 and not as 5.000000000000001.
        let value = (self.0 * 100.0 * 1e6).round() / 1e6;
        write!(f, "{value} %")
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Percent, D::Error> {
        let text = String::deserialize(d)?;
        Percent::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A size: `"64 KiB"`, `"1 MiB"`, `"0 B"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Reads `"64 KiB"`.
    ///
    /// # Errors
    /// A sentence that names the text when it is no whole number with one of the units B, KiB,
    /// MiB, GiB or does not fit into 64 bits.
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let shift = match unit.trim() {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => {
                return Err(format!(
                    "`{text}` is not a size: write a size as \"64 KiB\""
                ));
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(1 << shift))
            .map(Bytes)
            .ok_or_else(|| format!("`{text}` is not a size: write a size as \"64 KiB\""))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(d)?;
        Bytes::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_needs_its_sign_and_stays_below_one_hundred() {
        assert_eq!(Percent::parse("+5 %").unwrap(), Percent(0.05));
        assert_eq!(Percent::parse("0.5%").unwrap(), Percent(0.005));
        assert_eq!(Percent::parse("0 %").unwrap(), Percent(0.0));
        for wrong in ["5", "0.05", "105 %", "-3 %", "many %", "nan %", ""] {
            assert!(
                Percent::parse(wrong).unwrap_err().contains(wrong),
                "{wrong}"
            );
        }
        assert_eq!(Percent::parse("5 %").unwrap().to_string(), "5 %");
        assert_eq!(Percent::parse("0.02 %").unwrap().to_string(), "0.02 %");
    }

    #[test]
    fn bytes_need_their_unit_and_print_as_written() {
        assert_eq!(Bytes::parse("64 KiB").unwrap(), Bytes(65536));
        assert_eq!(Bytes::parse("0 B").unwrap(), Bytes(0));
        for text in ["64 KiB", "3 MiB", "1 GiB", "100 B", "0 B"] {
            assert_eq!(Bytes::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["64", "1 KB", "-1 B", "99999999999 GiB", "B"] {
            assert!(Bytes::parse(wrong).is_err(), "{wrong}");
        }
    }
}
