//! Mutated recordings of other tools: a trace, or an error that names the line; never a panic. The number of cases can be
//! set with `HEAPLAB_HOSTILE_CASES` (default 5,000).

#[path = "common/random.rs"]
mod random;

use heaplab_workloads::trace::{ImportFormat, ImportOptions, Trace, import};
use random::Random;
use rayon::prelude::*;
use std::path::Path;

/// Small files of each format, each with all kinds of lines.
fn originals() -> Vec<Vec<u8>> {
    let heaptrack = "v 10400 3\nX prog arg\nI 1000 80\n+ 10 1 1000\n+ 20 1 2000\nc a\n- 1000\n+ 30 2 3000\n- 2000\nc 14\n- 3000\n";
    let interpreted = "v 10400 3\nX prog\na 10 1\na 400 2\n+ 0\n+ 1\nc a\n- 0\n+ 1\n- 1\nc 14\n";
    let csv = "call,block,size,time_ns,thread,alignment,new_block\nmalloc,0x10,5,100,0,,\ncalloc,0x20,7,200,1,,\n\
               realloc,0x10,50,300,0,,0x30\nposix_memalign,0x40,64,350,1,64,\nfree,0x20,0,400,0,,\ndelete,0x30,0,500,1,,\n";
    let mtrace =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mtrace.log"))
            .expect("a fixture");
    let packed = zstd::encode_all(heaptrack.as_bytes(), 1).expect("compressed");
    vec![
        heaptrack.into(),
        interpreted.into(),
        csv.into(),
        mtrace,
        packed,
    ]
}

/// Words that parsers take for numbers, or just not.
const WORDS: [&str; 10] = [
    "0",
    "-1",
    "ffffffffffffffff",
    "0xffffffffffffffff",
    "18446744073709551616",
    "\n",
    ",",
    " ",
    "(nil)",
    "\u{e9}",
];

#[test]
fn mutated_recordings_never_panic() {
    let cases: u64 = std::env::var("HEAPLAB_HOSTILE_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5_000);
    let originals = originals();
    let imported: u64 = (0..cases)
        .into_par_iter()
        .map_init(
            || tempfile::tempdir().expect("a folder"),
            |folder, case| {
                let mut random = Random::new(case);
                let mut bytes = originals[case as usize % originals.len()].clone();
                for _ in 0..1 + random.below(4) {
                    let at = random.below(bytes.len());
                    match random.below(5) {
                        0 => bytes[at] ^= 1 << random.below(8),
                        1 => bytes[at] = random.below(256) as u8,
                        2 => {
                            let word = WORDS[random.below(WORDS.len())].bytes();
                            bytes.splice(at..at, word);
                        }
                        3 => {
                            let end = (at + random.below(24)).min(bytes.len());
                            let piece = bytes[at..end].to_vec();
                            let to = random.below(bytes.len());
                            bytes.splice(to..to, piece);
                        }
                        _ => {
                            let end = (at + random.below(8)).min(bytes.len() - 1);
                            bytes.drain(at.min(end)..end);
                        }
                    }
                }
                if random.below(8) == 0 {
                    bytes.truncate(random.below(bytes.len()));
                }
                let (from, out) = (folder.path().join("x"), folder.path().join("x.hltrace"));
                std::fs::write(&from, &bytes).expect("written");
                match import(&from, &out, &ImportOptions::default(), &mut |_, _| {}) {
                    Ok(summary) => {
                        let trace = Trace::open(&out).expect("what was written opens");
                        let again = trace.verify(&mut |_, _| {}).expect("every rule holds");
                        assert_eq!(again.events, summary.events);
                        std::fs::remove_file(&out).expect("removed");
                        1
                    }
                    Err(error) => {
                        let text = error.to_string();
                        let said = [
                            "line ",
                            "neither a heaptrack file",
                            "cannot read",
                            "is empty",
                        ];
                        assert!(
                            said.iter().any(|said| text.contains(said)),
                            "case {case}: {text}"
                        );
                        assert!(!out.exists(), "case {case}: a partial file");
                        0
                    }
                }
            },
        )
        .sum();
    println!("{cases} mutated recordings, {imported} of them imported");
    assert!(imported > cases / 100 && imported < cases, "{imported}");
}

#[test]
fn what_never_ends_its_line_is_no_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, out) = (folder.path().join("x"), folder.path().join("x.hltrace"));
    let sparse = std::fs::File::create(&from).expect("made");
    sparse.set_len(64 << 30).expect("a size");
    for format in [None, Some(ImportFormat::Csv), Some(ImportFormat::Mtrace)] {
        let options = ImportOptions {
            format,
            ..ImportOptions::default()
        };
        let error = import(&from, &out, &options, &mut |_, _| {}).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("line 1: it has more than 16 MiB, this is no text"),
            "{error}"
        );
    }
    let error = import(
        std::path::Path::new("/dev/zero"),
        &out,
        &ImportOptions::default(),
        &mut |_, _| {},
    )
    .unwrap_err();
    assert!(error.to_string().contains("it is a device"), "{error}");
    assert!(!out.exists());
}
