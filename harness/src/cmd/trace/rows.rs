//! Names and values for people, one a line.

use crate::out::{self, human_count};

/// `12 ns`, `3.4 us`, `1.2 ms`, `5.0 s`.
pub fn duration(ns: u64) -> String {
    let f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", f / 1e6),
        _ => format!("{:.1} s", f / 1e9),
    }
}

/// Names and values, one a line; empty values are left out.
#[derive(Default)]
pub struct Rows(Vec<Vec<String>>);

impl Rows {
    /// A name and its value, unless that is empty.
    pub fn add(&mut self, name: &str, value: String) {
        if !value.trim().is_empty() {
            self.0
                .push(vec![name.to_string(), value.trim().to_string()]);
        }
    }

    /// Only where there are any.
    pub fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.add(name, human_count(count));
        }
    }

    /// All of them.
    pub fn text(&self) -> String {
        // No header: the first column names the rows.
        let text = out::columns(&["", ""], &self.0);
        text.split_once('\n')
            .map_or(String::new(), |(_, rows)| rows.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500_000), "1.5 ms");
        assert_eq!(duration(61_000_000_000), "61.0 s");
    }
}
