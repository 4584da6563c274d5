//! Each rebuilt benchmark behaves as the original is described. `docs/CLASSICS.md` shows the figures;
//! `HEAPLAB_UPDATE=1 cargo test --release -p heaplab-workloads --test classics` writes its table anew.

use heaplab_script::Script;
use heaplab_workloads::figures::Figures;
use heaplab_workloads::{Expected, Model, ModelParams};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

const DOCUMENT: &str = "docs/CLASSICS.md";
const BEGIN: &str = "<!-- table: written by tests/classics.rs -->\n";
const END: &str = "<!-- end of table -->";

/// What a description asks for.
struct Classic {
    name: &'static str,
    /// In words, from the source that the definition names.
    behaviour: &'static str,
    /// Smallest and largest size that may come.
    sizes: RangeInclusive<u64>,
    median: RangeInclusive<u64>,
    /// Blocks alive at the peak.
    live: RangeInclusive<u64>,
    /// Bytes alive at the peak, as requested: the live set × the sizes in it.
    bytes: RangeInclusive<u64>,
    /// Calls of an average thread, in the shortened or scaled script of this test.
    calls: RangeInclusive<u64>,
    /// Percent of frees that are remote.
    remote: RangeInclusive<u64>,
    /// Percent of calls that are reallocs.
    reallocs: RangeInclusive<u64>,
    /// Whether it is tested at scale 0.05, because of phases or lives of threads, instead of shortened with whole live sets.
    scaled: bool,
}

const NONE: RangeInclusive<u64> = 0..=0;

#[rustfmt::skip]
const CLASSICS: &[Classic] = &[
    Classic { name: "alloc-test", behaviour: "random slots filled or emptied; Pareto sizes up to 1 KiB; live set about half of 60,000 slots", sizes: 16..=1024, median: 30..=50, live: 28_000..=32_000, bytes: 3_200_000..=3_700_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "cache-scratch", behaviour: "one 8-byte block a thread, some of them first allocated by another thread", sizes: 8..=8, median: 8..=8, live: 2..=60, bytes: 110..=220, calls: 75_000..=75_000, remote: 1..=1, reallocs: NONE, scaled: false },
    Classic { name: "cache-thrash", behaviour: "one 8-byte block a thread, allocated and freed by the same thread", sizes: 8..=8, median: 8..=8, live: 2..=2, bytes: 16..=16, calls: 75_000..=75_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "glibc-simple", behaviour: "25, 100, 400 and 1,600 blocks of one size, then all freed in order", sizes: 16..=2048, median: 16..=512, live: 1_600..=2_200, bytes: 4_000_000..=4_500_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "glibc-thread", behaviour: "1,024 blocks a thread, random replacement; 4 bytes to 32 KiB by an inverse square law (density), no sharing", sizes: 4..=32_768, median: 6..=9, live: 2_040..=2_048, bytes: 99_000..=190_000, calls: 75_000..=75_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "larson", behaviour: "5,000 blocks a thread of 8 to 1,000 bytes, random replacement, successors inherit the set", sizes: 8..=1000, median: 490..=520, live: 498..=500, bytes: 250_000..=290_000, calls: 5000..=5000, remote: 8..=12, reallocs: NONE, scaled: true },
    Classic { name: "malloc-large", behaviour: "few blocks of several MiB at a time", sizes: 2_097_152..=12_582_912, median: 6_500_000..=8_300_000, live: 12..=12, bytes: 110_000_000..=130_000_000, calls: 1600..=1600, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "mleak", behaviour: "threads that make a few calls, end, and leave their blocks to a successor", sizes: 8..=4096, median: 58..=70, live: 48..=50, bytes: 7500..=15_000, calls: 120..=150, remote: 30..=70, reallocs: NONE, scaled: false },
    Classic { name: "mstress", behaviour: "powers of two; some blocks long-lived, some exchanged between threads; threads end and are replaced", sizes: 16..=16_384, median: 64..=128, live: 500..=2_000, bytes: 370_000..=690_000, calls: 2600..=3300, remote: 10..=40, reallocs: NONE, scaled: true },
    Classic { name: "rptest", behaviour: "8 to 16,000 bytes with linear fall-off; thousands of live blocks a thread; half of the blocks freed by another thread", sizes: 8..=16_000, median: 4_300..=5_000, live: 7_900..=17_000, bytes: 41_000_000..=47_000_000, calls: 75_000..=75_000, remote: 46..=52, reallocs: NONE, scaled: false },
    Classic { name: "sh6bench", behaviour: "1 to 1,000 bytes, mostly small; batches freed in reverse order and in order, two to one", sizes: 1..=1000, median: 30..=70, live: 3_500..=4_000, bytes: 370_000..=420_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "sh8bench", behaviour: "as sh6bench, in several threads, a third of the blocks freed by another thread", sizes: 1..=1000, median: 30..=70, live: 3_500..=12_200, bytes: 350_000..=390_000, calls: 75_000..=75_000, remote: 25..=36, reallocs: NONE, scaled: false },
    Classic { name: "tiny-churn", behaviour: "cfrac: 8 to 64 bytes, nearly all freed within a few calls, live set in the first-level cache", sizes: 8..=64, median: 16..=24, live: 490..=510, bytes: 12_000..=14_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "xmalloc", behaviour: "blocks of various small sizes, all allocated by one half of the threads and freed by the other", sizes: 8..=64, median: 34..=38, live: 1_000..=5_200, bytes: 39_000..=73_000, calls: 75_000..=75_000, remote: 100..=100, reallocs: NONE, scaled: false },
    Classic { name: "bimodal", behaviour: "one block in fifty is long-lived, all others die in batches", sizes: 16..=4096, median: 118..=138, live: 20_000..=36_000, bytes: 4_300_000..=4_800_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "checkerboard", behaviour: "every other block of a full field is freed, then larger ones are asked for", sizes: 96..=200, median: 96..=96, live: 2_900..=3_000, bytes: 430_000..=490_000, calls: 86_736..=86_736, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "fragmenter", behaviour: "sizes shift from phase to phase, a tenth of the blocks survives each shift", sizes: 48..=1100, median: 60..=250, live: 5_900..=6_000, bytes: 1_400_000..=1_600_000, calls: 60_000..=60_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "ratchet", behaviour: "six plateaus, each higher than the last, each after a peak 30 % above the whole", sizes: 16..=16_384, median: 110..=130, live: 5_150..=5_250, bytes: 1_100_000..=1_300_000, calls: 120_000..=120_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "robson", behaviour: "sizes double from 16 to 2,048 bytes, every other block of each fill stays, live bytes bounded by M", sizes: 16..=2048, median: 16..=32, live: 24_900..=25_100, bytes: 380_000..=430_000, calls: 73_930..=73_930, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "sawtooth", behaviour: "the live set rises to its full size and falls to a tenth, eight times", sizes: 16..=8192, median: 90..=102, live: 4_950..=5_000, bytes: 760_000..=850_000, calls: 120_000..=120_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "survivors", behaviour: "most die in a nursery, one in forty passes two and lives long", sizes: 16..=8192, median: 66..=82, live: 1_990..=2_010, bytes: 1_100_000..=1_300_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: true },
];

fn figures(model: &Model, params: &ModelParams) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    model.compile(params, &path, &mut |_, _| {}).unwrap();
    Figures::of(&Script::open(&path).unwrap())
}

#[test]
fn each_does_what_its_description_says() {
    let mut wrong = String::new();
    for classic in CLASSICS {
        let model = Model::builtin(classic.name).unwrap();
        let short = if classic.scaled {
            let params = ModelParams {
                scale: 0.05,
                ..ModelParams::default()
            };
            figures(&model, &params)
        } else {
            let ops = model.definition().ops.min(150_000);
            figures(&model.with_ops(ops), &ModelParams::default())
        };
        let percent = |share: f64| (share * 100.0).round() as u64;
        for (what, value, range) in [
            ("smallest size", short.sizes[0], &classic.sizes),
            ("median size", short.sizes[1], &classic.median),
            ("largest size", short.sizes[3], &classic.sizes),
            ("live blocks", short.peak_live_blocks, &classic.live),
            ("live bytes", short.peak_live_bytes, &classic.bytes),
            (
                "calls a thread",
                short.calls_per_thread() as u64,
                &classic.calls,
            ),
            (
                "percent of remote frees",
                percent(short.remote_share()),
                &classic.remote,
            ),
            (
                "percent of reallocs",
                percent(short.realloc_share()),
                &classic.reallocs,
            ),
        ] {
            if !range.contains(&value) {
                let _ = writeln!(
                    wrong,
                    "{}: {what} is {value}, expected {range:?}",
                    classic.name
                );
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Every classic and every decider of fragmentation has a row, made from the very script that the lock file names.
#[test]
fn the_document_shows_the_scripts_of_this_build() {
    let about: Vec<_> = Model::list()
        .iter()
        .filter_map(|about| Model::builtin(&about.name))
        .filter(|model| {
            use heaplab_workloads::model::definition::Category;
            let kind = model.definition().kind;
            let ours = ["producer-consumer", "realloc-growth", "churn"].contains(&model.name());
            !ours && (kind == Category::Classic || kind == Category::Fragmentation)
        })
        .map(|model| model.name().to_owned())
        .collect();
    let mut named: Vec<_> = CLASSICS.iter().map(|classic| classic.name).collect();
    named.sort_unstable();
    assert_eq!(about, named, "each classic needs a row");
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    if std::env::var_os("HEAPLAB_UPDATE").is_some() {
        let text = format!("{before}{BEGIN}{}{END}{after}", document());
        std::fs::write(DOCUMENT, text).unwrap();
        return;
    }
    for classic in CLASSICS {
        let expected = Expected::of(classic.name).unwrap();
        let mark = format!("| {} | {}", classic.name, classic.behaviour);
        let row = table
            .lines()
            .find(|line| line.starts_with(&mark))
            .unwrap_or_else(|| panic!("{} has no row with its behaviour", classic.name));
        let checksum = format!("`{:08x}`", expected.checksum >> 32);
        assert!(
            row.contains(&checksum),
            "the row of {} is of another script",
            classic.name
        );
    }
}

fn document() -> String {
    let mut text = String::from(
        "\n| model | behaviour it must reproduce | sizes: least, median, p99, most | mean | live blocks | live bytes, peak | mean | remote frees | threads | calls a thread | median age | script |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for classic in CLASSICS {
        let model = Model::builtin(classic.name).unwrap();
        let measured = figures(&model, &ModelParams::default());
        let [least, median, p99, most] = measured.sizes.map(grouped);
        let _ = writeln!(
            text,
            "| {} | {} | {least}, {median}, {p99}, {most} | {} | {} | {} | {} | {:.1} % | {} | {} | {} | `{:08x}` |",
            classic.name,
            classic.behaviour,
            grouped(measured.mean_size as u64),
            grouped(measured.peak_live_blocks),
            grouped(measured.peak_live_bytes),
            grouped(measured.mean_live_bytes as u64),
            100.0 * measured.remote_share(),
            grouped(measured.threads as u64),
            grouped(measured.calls_per_thread() as u64),
            grouped(measured.median_age),
            Expected::of(classic.name).unwrap().checksum >> 32,
        );
    }
    text.push('\n');
    text
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
