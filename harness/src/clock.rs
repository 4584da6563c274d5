//! The calendar: UTC time stamps for result sets and folder names, without a date library.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(u64);

impl Utc {
    /// The present moment.
    pub fn now() -> Self {
        Utc(SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()))
    }

    /// `2026-11-25T02:03:05Z`
    pub fn rfc3339(self) -> String {
        let (y, m, d) = self.date();
        let (h, min, s) = self.time();
        format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}Z")
    }

    /// `20261125T020305Z`: sorts by time and needs no quoting in a shell.
    pub fn compact(self) -> String {
        self.rfc3339().replace(['-', ':'], "")
    }

    fn time(self) -> (u64, u64, u64) {
        let s = self.0 % 86_400;
        (s / 3600, s / 60 % 60, s % 60)
    }

    /// Days to civil date by Howard Hinnant's era arithmetic (years start in March, eras are 400 years).
    fn date(self) -> (u64, u64, u64) {
        let z = self.0 / 86_400 + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let mp = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        (year_of_era + era * 400 + u64::from(month <= 2), month, day)
    }
}

#[cfg(test)]
mod tests {
    use super::Utc;

    #[test]
    fn known_moments() {
        assert_eq!(Utc(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Utc(951_782_400).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(Utc(1_735_689_599).rfc3339(), "2024-12-31T23:59:59Z");
        assert_eq!(Utc(1_735_689_599).compact(), "20241231T235959Z");
        assert_eq!(Utc(4_107_542_400).rfc3339(), "2100-03-01T00:00:00Z");
    }
}
