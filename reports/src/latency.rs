//! Latency figures from HDR histograms: merging, the clock's floor, percentiles with enough events, and the
//! encodings that other HdrHistogram tools read.

use crate::error::ReportError;
use crate::schema::{Latency, LatencyPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::collections::BTreeMap;

/// One histogram as a worker sends it.
#[derive(Clone, Copy, Debug)]
pub struct HistogramPart<'a> {
    /// Op kind: `malloc`, `free`, …
    pub op: &'a str,
    /// Upper end of the size range in bytes, inclusive; `u64::MAX` = no upper end.
    pub size_le: u64,
    /// The block was freed by another thread than allocated it.
    pub remote: bool,
    /// HdrHistogram V2 or V2 + deflate, base64; unit nanoseconds.
    pub hdr_base64: &'a str,
    /// Calls over 1 µs by cause: page fault, preemption, allocator.
    pub slow: [u64; 3],
}

/// Merges the parts of all threads and blocks and gives the figures by op kind.
///
/// `floor_ns` is what an empty pair of clock reads costs: percentiles below it are `None`, as are those with
/// fewer than ten events beyond them.
pub fn latency_by_op(
    parts: &[HistogramPart<'_>],
    floor_ns: f64,
) -> Result<BTreeMap<String, Latency>, ReportError> {
    let mut by_op: BTreeMap<&str, Vec<HistogramPart<'_>>> = BTreeMap::new();
    for part in parts {
        by_op.entry(part.op).or_default().push(*part);
    }
    let mut result = BTreeMap::new();
    for (op, parts) in by_op {
        let latency = Latency::from_histograms(&parts, floor_ns)?;
        if latency.count > 0 {
            result.insert(op.to_owned(), latency);
        }
    }
    Ok(result)
}

impl Latency {
    /// Figures of one op kind from its histograms (any number for one size range and side; they are added).
    pub fn from_histograms(
        parts: &[HistogramPart<'_>],
        floor_ns: f64,
    ) -> Result<Self, ReportError> {
        let mut ranges: BTreeMap<(u64, bool), (Histogram<u64>, [u64; 3])> = BTreeMap::new();
        let mut slow = [0_u64; 3];
        for part in parts {
            let h = decode(part.hdr_base64, part.op)?;
            let (sum, slow_here) = ranges
                .entry((part.size_le, part.remote))
                .or_insert_with(|| (empty(), [0; 3]));
            add(sum, &h, part.op)?;
            for (at, n) in part.slow.into_iter().enumerate() {
                slow[at] += n;
                slow_here[at] += n;
            }
        }
        let mut all = empty();
        let mut by = Vec::new();
        for ((size_le, remote), (h, slow)) in &ranges {
            add(&mut all, h, "all sizes")?;
            if h.is_empty() {
                continue;
            }
            by.push(LatencyPart {
                size_le: (*size_le != u64::MAX).then_some(*size_le),
                remote: *remote,
                count: h.len(),
                p50_ns: percentile(h, 5_000, floor_ns),
                p99_ns: percentile(h, 9_900, floor_ns),
                p999_ns: percentile(h, 9_990, floor_ns),
                max_ns: h.max() as f64,
                slow: by_cause(*slow),
            });
        }
        Ok(Self {
            count: all.len(),
            p50_ns: percentile(&all, 5_000, floor_ns),
            p90_ns: percentile(&all, 9_000, floor_ns),
            p99_ns: percentile(&all, 9_900, floor_ns),
            p999_ns: percentile(&all, 9_990, floor_ns),
            p9999_ns: percentile(&all, 9_999, floor_ns),
            max_ns: all.max() as f64,
            floor_ns,
            hdr: encode(&all),
            by,
            slow: by_cause(slow),
        })
    }

    /// The histogram itself (values in nanoseconds).
    pub fn histogram(&self) -> Result<Histogram<u64>, ReportError> {
        decode(&self.hdr, "a cell")
    }
}

/// Causes of slow calls, in the order of [`HistogramPart::slow`].
pub(crate) const CAUSES: [&str; 3] = ["fault", "preemption", "allocator"];

fn by_cause(slow: [u64; 3]) -> BTreeMap<String, u64> {
    (CAUSES.iter().zip(slow))
        .map(|(cause, calls)| ((*cause).to_owned(), calls))
        .collect()
}

/// All op kinds of a cell in one histogram and the highest floor among them; `None` without latency or if a
/// histogram cannot be decoded.
pub(crate) fn all_ops(latency: &BTreeMap<String, Latency>) -> Option<(Histogram<u64>, f64)> {
    let mut all = empty();
    let mut floor = 0.0_f64;
    for l in latency.values() {
        all.add(l.histogram().ok()?).ok()?;
        floor = floor.max(l.floor_ns);
    }
    (!all.is_empty()).then_some((all, floor))
}

/// Value at `per_10000` / 100 percent; `None` below the floor or with fewer than ten events beyond it.
pub(crate) fn percentile(h: &Histogram<u64>, per_10000: u64, floor_ns: f64) -> Option<f64> {
    // Integers, because 1 − 0.999 is not a thousandth in binary.
    let enough = h.len().saturating_mul(10_000 - per_10000) >= 10 * 10_000;
    let value = h.value_at_quantile(per_10000 as f64 / 10_000.0) as f64;
    (enough && value >= floor_ns).then_some(value)
}

fn empty() -> Histogram<u64> {
    let mut h =
        Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("constant bounds are valid");
    h.auto(true);
    h
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>, what: &str) -> Result<(), ReportError> {
    to.add(from).map_err(|e| ReportError::Histogram {
        what: what.to_owned(),
        message: format!("{e:?}"),
    })
}

fn decode(text: &str, what: &str) -> Result<Histogram<u64>, ReportError> {
    let fail = |message: String| ReportError::Histogram {
        what: what.to_owned(),
        message,
    };
    let bytes = STANDARD.decode(text).map_err(|e| fail(e.to_string()))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| fail(format!("{e:?}")))
}

fn encode(h: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(h, &mut bytes)
        .expect("writing a histogram to memory cannot fail");
    STANDARD.encode(bytes)
}

/// The interval log of one cell: one line an op kind, tagged with its name, readable by HdrHistogram's
/// other tools.
pub fn interval_log(
    cell: &str,
    latency: &BTreeMap<String, Latency>,
    seconds: f64,
) -> Result<Vec<u8>, ReportError> {
    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
    use std::time::Duration;
    let fail = |message: String| ReportError::Histogram {
        what: cell.to_owned(),
        message,
    };
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!(
            "heaplab latency of {}, nanoseconds, tag = op kind",
            cell.replace('\n', " ")
        ))
        .with_max_value_divisor(1.0)
        .begin_log_with(&mut text, &mut serializer)
        .map_err(|e| fail(e.to_string()))?;
    let length = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    for (op, l) in latency {
        let tag: String = op
            .chars()
            .filter(|c| !c.is_whitespace() && *c != ',')
            .collect();
        log.write_histogram(&l.histogram()?, Duration::ZERO, length, Tag::new(&tag))
            .map_err(|e| fail(format!("{e:?}")))?;
    }
    drop(log);
    Ok(text)
}
