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
    Classic { name: "alloc-test", behaviour: "places chosen by Pareto's 80/20 law, taken six times, are filled or emptied; half of the blocks have 5 to 8 bytes, a quarter 9 to 16 and so on", sizes: 5..=1024, median: 6..=10, live: 5_500..=6_554, bytes: 135_000..=190_000, calls: 200_000..=200_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "cache-scratch", behaviour: "one 8-byte block a thread, some of them first allocated by another thread", sizes: 8..=8, median: 8..=8, live: 2..=60, bytes: 110..=220, calls: 75_000..=75_000, remote: 1..=1, reallocs: NONE, scaled: false },
    Classic { name: "cache-thrash", behaviour: "one 8-byte block a thread, allocated and freed by the same thread", sizes: 8..=8, median: 8..=8, live: 2..=2, bytes: 16..=16, calls: 75_000..=75_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "glibc-simple", behaviour: "25, 100, 400 and 1,600 blocks of one size, then all freed in order; sizes from the list of glibc's own benchmark", sizes: 16..=2048, median: 16..=512, live: 1_600..=2_200, bytes: 4_000_000..=4_500_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "glibc-thread", behaviour: "1,024 blocks a thread, random replacement; 4 bytes to 32 KiB by an inverse square law (density), no sharing", sizes: 4..=32_768, median: 6..=9, live: 2_040..=2_048, bytes: 99_000..=190_000, calls: 75_000..=75_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "larson", behaviour: "5,000 blocks a thread of 8 to 1,000 bytes, random replacement, successors inherit the set", sizes: 8..=1000, median: 490..=520, live: 498..=500, bytes: 250_000..=290_000, calls: 5000..=5000, remote: 8..=12, reallocs: NONE, scaled: true },
    Classic { name: "malloc-large", behaviour: "twenty blocks of 5 to 25 MiB, replaced at random", sizes: 5_242_880..=26_214_400, median: 14_500_000..=17_000_000, live: 20..=20, bytes: 314_000_000..=420_000_000, calls: 800..=800, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "mleak", behaviour: "ten threads at a time: each allocates 128 zeroed bytes, puts them into a table of 1,000 places, frees what lay there, and ends", sizes: 128..=128, median: 128..=128, live: 900..=1_010, bytes: 110_000..=130_000, calls: 2..=3, remote: 97..=100, reallocs: NONE, scaled: false },
    Classic { name: "mstress", behaviour: "powers of two from 8 bytes, one block in fifty a hundred times larger or more; a third kept until the thread ends, the others freed by chance or swapped through a table of 1,000; a thread frees all it has and is replaced", sizes: 8..=5_120_000, median: 32..=64, live: 900..=2_000, bytes: 1_000_000..=9_000_000, calls: 900..=1300, remote: 5..=40, reallocs: NONE, scaled: true },
    Classic { name: "rptest", behaviour: "8 to 16,000 bytes with steep fall-off; about half of 1,000 places a thread full; a third of the blocks, in batches, freed by another thread; half of the calls aligned, the others zeroed", sizes: 8..=16_000, median: 1_700..=1_900, live: 1_240..=1_500, bytes: 3_200_000..=4_200_000, calls: 75_000..=75_000, remote: 30..=35, reallocs: NONE, scaled: false },
    Classic { name: "sh6bench", behaviour: "1 to 709 bytes, half below 7; batches over 10,000 places: two fifths freed in order, two fifths in reverse, a fifth kept through the next batch", sizes: 1..=709, median: 6..=7, live: 9_900..=10_000, bytes: 220_000..=260_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "sh8bench", behaviour: "a burst of 8-byte blocks of one thread freed by the others, then batches as in sh6bench in each; 8 to 168,524 bytes, 96 % up to 48", sizes: 8..=168_524, median: 16..=16, live: 25_000..=42_000, bytes: 1_200_000..=3_400_000, calls: 50_000..=50_000, remote: 4..=7, reallocs: NONE, scaled: false },
    Classic { name: "tiny-churn", behaviour: "cfrac: 8 to 64 bytes, nearly all freed within a few calls, live set in the first-level cache", sizes: 8..=64, median: 16..=24, live: 490..=510, bytes: 12_000..=14_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "xmalloc", behaviour: "blocks of 64 bytes in batches of 4,096, all allocated by one half of the threads and freed by the other, up to a hundred batches in between", sizes: 64..=32_776, median: 64..=64, live: 9_000..=30_000, bytes: 600_000..=2_500_000, calls: 75_000..=75_000, remote: 100..=100, reallocs: NONE, scaled: true },
    Classic { name: "bimodal", behaviour: "one block in fifty is long-lived, all others die in batches", sizes: 16..=4096, median: 118..=138, live: 20_000..=36_000, bytes: 4_300_000..=4_800_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: false },
    Classic { name: "checkerboard", behaviour: "every other block of a full field is freed, then larger ones are asked for", sizes: 96..=200, median: 96..=96, live: 2_900..=3_000, bytes: 430_000..=490_000, calls: 86_736..=86_736, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "fragmenter", behaviour: "sizes shift from phase to phase, a tenth of the blocks survives each shift", sizes: 48..=1100, median: 60..=250, live: 5_900..=6_000, bytes: 1_400_000..=1_600_000, calls: 60_000..=60_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "ratchet", behaviour: "six plateaus, each higher than the last, each after a peak above it by 30 % of the last one", sizes: 16..=16_384, median: 110..=130, live: 5_150..=5_250, bytes: 1_100_000..=1_300_000, calls: 120_000..=120_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "robson", behaviour: "sizes double from 16 to 2,048 bytes, every other block of each fill stays, live bytes bounded by M", sizes: 16..=2048, median: 16..=32, live: 24_900..=25_100, bytes: 380_000..=430_000, calls: 73_930..=73_930, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "sawtooth", behaviour: "the live set rises to its full size and falls to a tenth, eight times", sizes: 16..=8192, median: 90..=102, live: 4_950..=5_000, bytes: 760_000..=850_000, calls: 120_000..=120_000, remote: NONE, reallocs: NONE, scaled: true },
    Classic { name: "survivors", behaviour: "most die in a nursery, one in forty passes two and lives long", sizes: 16..=8192, median: 66..=82, live: 1_990..=2_010, bytes: 1_100_000..=1_300_000, calls: 150_000..=150_000, remote: NONE, reallocs: NONE, scaled: true },
];

/// How a published program is run, as its description and the script that drives it say, and its peak resident memory as measured.
struct Original {
    name: &'static str,
    /// The program and the arguments that its suite gives it; N threads.
    run: &'static str,
    sizes: &'static str,
    live: &'static str,
    remote: &'static str,
    threads: &'static str,
    calls: &'static str,
    /// Peak resident under glibc 2.36, of the whole program, with two threads.
    footprint: &'static str,
}

#[rustfmt::skip]
const ORIGINALS: &[Original] = &[
    Original { name: "alloc-test", run: "alloc-test 1", sizes: "5 to 1,024; half of the blocks to 8, a quarter to 16, …", live: "half of 262,144 places", remote: "none", threads: "1", calls: "100,000,000", footprint: "13.3 MiB, 4 of them its table" },
    Original { name: "cache-scratch", run: "cache-scratch N 1000 1 2000000 N", sizes: "1", live: "one a thread", remote: "each thread's first", threads: "N", calls: "2,000", footprint: "3.4 MiB" },
    Original { name: "cache-thrash", run: "cache-thrash N 1000 1 2000000 N", sizes: "1", live: "one a thread", remote: "none", threads: "N", calls: "2,000", footprint: "3.3 MiB" },
    Original { name: "glibc-simple", run: "glibc-simple", sizes: "16, then 32, then 64; glibc itself runs it with ten from 8 to 4,096", live: "25, 100, 400, 1,600", remote: "none", threads: "4, one at a time", calls: "144,000,000 of the first, 16,000,000 of each other", footprint: "1.5 MiB" },
    Original { name: "glibc-thread", run: "glibc-thread N", sizes: "4 to 32,768, density by the inverse square", live: "1,024 a thread", remote: "none", threads: "N", calls: "for two seconds", footprint: "1.9 MiB" },
    Original { name: "larson", run: "larson 5 8 1000 5000 100 4141 N", sizes: "8 to 1,000, even", live: "5,000 a thread", remote: "what a life inherits: 5,000 of 500,000 (1 %)", threads: "N at a time", calls: "1,000,000 a life", footprint: "17.7 MiB" },
    Original { name: "malloc-large", run: "malloc-large", sizes: "5 to 25 MiB, even", live: "20", remote: "none", threads: "1", calls: "4,000", footprint: "471 MiB" },
    Original { name: "mleak", run: "mleak 5", sizes: "128, zeroed", live: "1,000 places", remote: "nearly all", threads: "10 at a time, 5,000 in all", calls: "2", footprint: "2.1 MiB" },
    Original { name: "mstress", run: "mstress N 50 25", sizes: "8 to 128, those kept to 512; 2 % a hundred times larger or more", live: "11,000 with two threads, 107,000 with eight", remote: "what is swapped: 5 % with two threads, 8 % with eight", threads: "N at a time, 25 times", calls: "15,000 a life, of the second thread twice as many, …", footprint: "11.6 MiB" },
    Original { name: "rptest", run: "rptest N 0 1 2 500 1000 100 8 16000", sizes: "8 to 16,000, steep fall-off", live: "about half of 1,000 places a thread", remote: "a batch in three: 33 %", threads: "N at a time, twice", calls: "some 200,000 a life", footprint: "29.1 MiB" },
    Original { name: "sh6bench", run: "sh6bench 2N", sizes: "1 to 709, half below 7, in runs of one size", live: "10,000 places, shared out; a fifth kept", remote: "none", threads: "2N", calls: "10,000 rounds of 19,300 blocks, shared out", footprint: "not measured" },
    Original { name: "sh8bench", run: "sh8bench 2N", sizes: "8 to 168,524, 96 % to 48, in runs of one size", live: "1,000,000 places, shared out; a fifth kept", remote: "a burst of 10,000,000 at the beginning: 2 %", threads: "2N and the first", calls: "700,000 runs of one size, shared out", footprint: "not measured" },
    Original { name: "tiny-churn", run: "cfrac, a number of 44 digits; 35 for the footprint", sizes: "small numbers of some 8 to 64", live: "a few hundred", remote: "none", threads: "1", calls: "millions", footprint: "2.1 MiB" },
    Original { name: "xmalloc", run: "xmalloc-test -w N -t 5 -s 64", sizes: "64, and 32 KiB for each batch", live: "to 100 batches of 4,096", remote: "all", threads: "N and N", calls: "for five seconds", footprint: "42.4 MiB" },
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
    let rebuilt = |name: &&String| {
        let model = Model::builtin(name).unwrap();
        model.definition().kind == heaplab_workloads::model::definition::Category::Classic
    };
    let rebuilt: Vec<_> = about.iter().filter(rebuilt).map(String::as_str).collect();
    let asked: Vec<_> = ORIGINALS.iter().map(|original| original.name).collect();
    assert_eq!(
        rebuilt, asked,
        "each rebuilt program needs a row that says how the original is run"
    );
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
    let all: Vec<_> = CLASSICS
        .iter()
        .map(|classic| {
            let model = Model::builtin(classic.name).unwrap();
            (classic.name, figures(&model, &ModelParams::default()))
        })
        .collect();
    let mut text = String::from(
        "\n| model | | sizes, bytes | live blocks | remote frees | threads | calls a thread | footprint |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for original in ORIGINALS {
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} | {} | {} | {} |",
            original.name,
            original.run,
            original.sizes,
            original.live,
            original.remote,
            original.threads,
            original.calls,
            original.footprint,
        );
        let (_, measured) = all.iter().find(|(name, _)| *name == original.name).unwrap();
        let [least, median, _, most] = measured.sizes.map(grouped);
        let _ = writeln!(
            text,
            "| | ours | {least} to {most}, half to {median} | {} | {:.1} % | {} | {} | {} B live |",
            grouped(measured.peak_live_blocks),
            100.0 * measured.remote_share(),
            grouped(measured.threads as u64),
            grouped(measured.calls_per_thread() as u64),
            grouped(measured.peak_live_bytes),
        );
    }
    text.push_str(
        "\n| model | behaviour it must reproduce | sizes: least, median, p99, most | mean | live blocks | live bytes, peak | mean | remote frees | threads | calls a thread | median age | script |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (classic, (_, measured)) in CLASSICS.iter().zip(&all) {
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
