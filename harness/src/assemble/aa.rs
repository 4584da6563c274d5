//! The A/A pair: the same subject a second time under another label. What differs between the two is noise, so it is
//! taken out of the rows and kept with the calibration.

use heaplab_reports::schema::ResultSet;
use heaplab_reports::stats;
use serde_json::json;

/// Behind the label of the twin.
pub const SUFFIX: &str = " (A/A)";
/// Metrics that are compared: what a row is judged by.
const METRICS: [&str; 2] = ["ns_per_op", "peak_resident_bytes"];

/// Takes the twin's rows out of a result set, compares them with its original's, and says what came out.
pub(super) fn take(result: &mut ResultSet) {
    let twin = (result.subjects.iter())
        .find_map(|s| Some((s.name.clone(), s.name.strip_suffix(SUFFIX)?.to_owned())));
    let Some((twin, original)) = twin else { return };
    let (twins, rest): (Vec<_>, Vec<_>) =
        (std::mem::take(&mut result.cells).into_iter()).partition(|cell| cell.subject == twin);
    result.cells = rest;
    result.subjects.retain(|subject| subject.name != twin);
    let (mut pairs, mut inside, mut largest) = (Vec::new(), 0, 0.0_f64);
    for cell in &twins {
        let same = (result.cells.iter()).find(|c| c.subject == original && c.key() == cell.key());
        for metric in METRICS {
            let (Some(a), Some(b)) = (
                cell.metrics.get(metric),
                same.and_then(|c| c.metrics.get(metric)),
            ) else {
                continue;
            };
            let Some(ratio) = stats::paired_ratio(&a.samples, &b.samples) else {
                continue;
            };
            let covers = ratio.low <= 1.0 && ratio.high >= 1.0;
            inside += u32::from(covers);
            largest = largest.max((ratio.median - 1.0).abs());
            pairs.push(json!({
                "workload": cell.workload, "threads": cell.threads, "api": cell.api, "metric": metric,
                "ratio": ratio, "covers_one": covers,
            }));
        }
    }
    if pairs.is_empty() {
        return;
    }
    result.notes.push(format!(
        "A/A: {original} against itself differed by at most {:.1} %; {inside} of {} intervals contain no difference",
        100.0 * largest,
        pairs.len()
    ));
    result.calibration.aa = Some(json!({
        "subject": original, "inside": inside, "of": pairs.len(), "largest_difference": largest, "pairs": pairs,
    }));
}
