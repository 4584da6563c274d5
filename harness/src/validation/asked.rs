//! What the program asks for under a subject, beside what the replayed recordings hold. They were made on the C library's malloc; a
//! program that looks at how large its blocks really are, or goes by the clock, may take another course under another allocator, and then
//! no replay of them can have its peak.

use crate::out::human_bytes;
use heaplab_reports::stats;
use heaplab_workloads::trace::TraceSummary;
use serde::Serialize;

/// Medians of recordings with the subject underneath, and of those that were replayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// Recordings with the subject underneath.
    pub recordings: usize,
    /// Calls that allocate.
    pub allocations: f64,
    /// Bytes requested.
    pub bytes_allocated: f64,
    /// Most bytes alive.
    pub peak_live_bytes: f64,
    /// The three of the replayed recordings.
    pub replayed: [f64; 3],
    /// Most bytes alive against those of the replayed recordings: -0.09 is 9 % less.
    pub differs: f64,
    /// By more than a prediction may err.
    pub otherwise: bool,
    /// Median peak of replays of the recordings with the subject underneath; absent where none succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_peak_bytes: Option<f64>,
    /// That against the program's own peak: what of the row's error is the replay's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
}

impl Asked {
    /// From the totals of both; `goal` is what a prediction may err by. `None` where one of them has none.
    pub fn new(under: &[TraceSummary], replayed: &[TraceSummary], goal: f64) -> Option<Self> {
        let [allocations, bytes_allocated, peak_live_bytes] = medians(under)?;
        let replayed = medians(replayed)?;
        let differs = peak_live_bytes / replayed[2].max(1.0) - 1.0;
        Some(Self {
            recordings: under.len(),
            allocations,
            bytes_allocated,
            peak_live_bytes,
            replayed,
            differs,
            otherwise: differs.abs() > goal,
            predicted_peak_bytes: None,
            error: None,
        })
    }

    /// With the peaks of replays of the recordings underneath, beside the program's own.
    #[must_use]
    pub fn replayed_as(mut self, peaks: &[f64], actual: Option<f64>) -> Self {
        self.predicted_peak_bytes = stats::median(peaks);
        self.error = (self.predicted_peak_bytes.zip(actual))
            .filter(|(_, actual)| *actual > 0.0)
            .map(|(predicted, actual)| predicted / actual - 1.0);
        self
    }

    /// A sentence for the row of `subject`.
    pub fn told(&self, subject: &str) -> String {
        let bytes = |n: f64| human_bytes(n as u64);
        let figures = format!(
            "has {} alive at most and makes {:.0} allocations ({} recordings with it underneath; replayed {} and {:.0})",
            bytes(self.peak_live_bytes),
            self.allocations,
            self.recordings,
            bytes(self.replayed[2]),
            self.replayed[0],
        );
        let replayed = match (self.predicted_peak_bytes, self.error) {
            (Some(peak), Some(error)) => format!(
                " Predicted from those recordings: {}, {:+.1} %.",
                bytes(peak),
                100.0 * error
            ),
            _ => String::new(),
        };
        match self.otherwise {
            true => format!(
                "! {subject}: under it the program asks otherwise, which no recording made elsewhere can predict: it {figures}, {:+.1} %.{replayed}",
                100.0 * self.differs
            ),
            false => format!(
                "  {subject}: under it the program asks for the same: it {figures}.{replayed}"
            ),
        }
    }
}

fn medians(of: &[TraceSummary]) -> Option<[f64; 3]> {
    let median = |figure: fn(&TraceSummary) -> u64| {
        stats::median(
            &of.iter()
                .map(|trace| figure(trace) as f64)
                .collect::<Vec<_>>(),
        )
    };
    Some([
        median(|trace| trace.allocations)?,
        median(|trace| trace.bytes_allocated)?,
        median(|trace| trace.peak_live_bytes)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_less_alive_under_a_subject_asks_otherwise() {
        let traces = |peaks: &[u64]| -> Vec<TraceSummary> {
            let one = |peak: &u64| {
                let mut trace = TraceSummary::default();
                trace.allocations = 900_000;
                trace.peak_live_bytes = *peak;
                trace
            };
            peaks.iter().map(one).collect()
        };
        let of = |under: &[u64]| Asked::new(&traces(under), &traces(&[90 << 20; 4]), 0.02);
        assert_eq!(of(&[]), None);
        let same = of(&[90 << 20, 91 << 20, 90 << 20]).unwrap();
        assert!(!same.otherwise && same.told("x").contains("asks for the same"));
        let other = of(&[82 << 20, 82 << 20, 90 << 20]).unwrap();
        assert!(other.otherwise && other.recordings == 3);
        let told = other.told("jemalloc");
        assert!(
            told.contains("! jemalloc: under it the program asks otherwise")
                && told.contains("82.00 MiB alive")
                && told.ends_with("-8.9 %."),
            "{told}"
        );
        let replayed = other.replayed_as(&[99.0, 99.0, 110.0], Some(100.0));
        assert!((replayed.error.unwrap() + 0.01).abs() < 1e-12);
        let told = replayed.told("jemalloc");
        assert!(
            told.ends_with("-8.9 %. Predicted from those recordings: 99 B, -1.0 %."),
            "{told}"
        );
        assert_eq!(same.replayed_as(&[], Some(100.0)).error, None);
    }
}
