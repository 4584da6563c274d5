//! How often the gate is wrong: whole gate runs simulated with a fixed seed, judged by the real
//! judge. Noise as measured on shared machines: it differs from cell to cell (standard deviation of
//! a pair lognormal, median 2.5 %, 90th percentile 8 %), has Student t(3) tails, and rides on a
//! drift that both sides of a block share.

mod common;

use common::{Noise, cell, set};
use heaplab_ci::{GateReport, Policy, Verdict, judge_pair};
use heaplab_reports::schema::{Cell, ResultSet};

const CELLS: usize = 40;

/// Standard deviation of the log ratio of a pair, for each cell.
fn spreads(noise: &mut Noise) -> Vec<f64> {
    (0..CELLS)
        .map(|_| 0.025 * (noise.normal() * 3.2_f64.ln() / 1.2816).exp())
        .collect()
}

/// One gate run of 40 cells; the head's times are `factor` of the base's. Counts repeat within
/// 0.005 %, lockstep memory within about 0.3 %, both without a change.
fn run(noise: &mut Noise, pairs: usize, factor: f64) -> ResultSet {
    let spreads = spreads(noise);
    let mut cells: Vec<Cell> = Vec::new();
    for (i, spread) in spreads.iter().enumerate() {
        let one = spread / 2.0_f64.sqrt();
        let mut drift = 0.0;
        let (mut base, mut head) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            drift += 0.01 * noise.heavy();
            base.push(40.0 * (drift + one * noise.heavy()).exp());
            head.push(40.0 * factor * (drift + one * noise.heavy()).exp());
        }
        for (subject, times) in [("base", base), ("head", head)] {
            let mut repeated = |value: f64, share: f64| -> Vec<f64> {
                (0..2)
                    .map(|_| value * (1.0 + share * noise.uniform()))
                    .collect()
            };
            let metrics = [
                ("ns_per_op", times),
                ("instructions", repeated(1e8, 0.00005)),
                ("peak_resident_bytes", repeated(5e7, 0.003)),
            ];
            cells.push(cell(&format!("workload-{i}"), subject, &metrics));
        }
    }
    set(cells)
}

fn judged(result: &ResultSet, policy: &Policy) -> GateReport {
    judge_pair(result, "base", "head", &[], policy)
}

/// Share of rows of times with `verdict`, over `runs` gate runs.
fn share(seed: u64, runs: usize, pairs: usize, factor: f64, verdict: Verdict) -> f64 {
    let mut noise = Noise(seed);
    let policy = Policy::default();
    let mut hits = 0;
    for _ in 0..runs {
        let report = judged(&run(&mut noise, pairs, factor), &policy);
        let times = report.rows.iter().filter(|r| r.metric == "ns_per_op");
        hits += times.filter(|r| r.verdict == verdict).count();
    }
    hits as f64 / (runs * CELLS) as f64
}

#[test]
fn the_whole_run_is_red_without_a_change_in_at_most_one_run_of_a_hundred() {
    let mut noise = Noise(20_261_125);
    let policy = Policy::default();
    let (runs, mut red, mut missing) = (300, 0, 0);
    for _ in 0..runs {
        let report = judged(&run(&mut noise, 20, 1.0), &policy);
        assert_eq!((report.rows.len(), report.tests), (3 * CELLS, CELLS));
        red += usize::from(report.exit_status(false) != 0);
        missing += report.count(Verdict::Missing);
    }
    println!("red A/A runs: {red} of {runs}");
    assert!(
        red * 100 <= runs,
        "{red} of {runs} runs without a change were red"
    );
    assert_eq!(missing, 0);
}

#[test]
fn the_level_holds_even_without_the_minimum_effect() {
    // Only the exact test and its correction for 40 cells stand between noise and a red run.
    let policy = Policy::parse("[metric.ns_per_op]\nmin_effect = \"0 %\"\n", "p").unwrap();
    let mut noise = Noise(77);
    let runs = 300;
    let red = (0..runs)
        .filter(|_| judged(&run(&mut noise, 20, 1.0), &policy).exit_status(false) != 0)
        .count();
    println!("red A/A runs without minimum effect: {red} of {runs}");
    // 1 % is expected at most; 8 of 300 would be less likely than 1 in 100 at exactly 1 %.
    assert!(red < 8, "{red} of {runs}");
}

#[test]
fn five_percent_slower_is_caught_with_the_stated_power() {
    let few = share(5, 15, 24, 1.05, Verdict::Regression);
    let many = share(6, 15, 64, 1.05, Verdict::Regression);
    let double = share(7, 15, 64, 1.10, Verdict::Regression);
    println!("caught: +5 % in 24 pairs {few:.3}, in 64 {many:.3}; +10 % in 64 {double:.3}");
    assert!(few >= 0.80, "{few}");
    assert!(many >= 0.95, "{many}");
    assert!(double >= 0.98, "{double}");
}

#[test]
fn a_real_five_percent_seldom_passes_as_harmless() {
    let passed = share(8, 15, 24, 1.05, Verdict::Pass);
    println!("+5 % called a pass in 24 pairs: {passed:.4}");
    // A pass is a statement at 99 %.
    assert!(passed <= 0.02, "{passed}");
    // What did not change is mostly shown to be harmless, not left open.
    let same = share(9, 15, 24, 1.0, Verdict::Pass);
    println!("no change called a pass in 24 pairs: {same:.3}");
    assert!(same >= 0.75, "{same}");
}

#[test]
fn what_the_report_says_it_could_show_it_does_show() {
    // Take the figure from runs without a change, then plant a change of that size.
    let policy = Policy::default();
    let mut noise = Noise(10);
    let (mut shown, mut all) = (0, 0);
    for _ in 0..12 {
        let result = run(&mut noise, 32, 1.0);
        let report = judged(&result, &policy);
        let mut planted = result.clone();
        for cell in planted.cells.iter_mut().filter(|c| c.subject == "head") {
            let row = report
                .rows
                .iter()
                .find(|r| r.cell == cell.workload && r.metric == "ns_per_op");
            let could = row.and_then(|r| r.evidence.could_show).unwrap();
            let metric = cell.metrics.get_mut("ns_per_op").unwrap();
            metric
                .samples
                .iter_mut()
                .for_each(|s| s.value *= 1.0 + could);
        }
        let report = judged(&planted, &policy);
        let times: Vec<_> = report
            .rows
            .iter()
            .filter(|r| r.metric == "ns_per_op")
            .collect();
        all += times.len();
        shown += times
            .iter()
            .filter(|r| r.verdict == Verdict::Regression)
            .count();
    }
    println!("planted changes of the stated size caught: {shown} of {all}");
    assert!(shown * 100 >= all * 93, "{shown} of {all}");
}
