//! Every row of real libraries, compared with what gimli makes of the same tables.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, NativeEndian, RegisterRule, UnwindContext, UnwindSection,
};
use heaplab_unwind::{Memory, Row};
use object::{Object, ObjectSection, ObjectSegment};
use proptest::prelude::*;
use std::fs;

/// A file's loaded segments, at the addresses it was linked for.
struct Image(Vec<(u64, Vec<u8>)>);

impl Memory for Image {
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.0.iter().find_map(|(base, bytes)| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(at..at.checked_add(N)?)?.try_into().ok()
        })
    }
}

/// What our packed row should be for gimli's; `None` for rules that end a walk.
fn expected(row: &gimli::UnwindTableRow<usize>) -> Option<Row> {
    let offset = |register| match row.register(gimli::Register(register)) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Some(None),
        Some(RegisterRule::Offset(offset)) => Some(Some(offset)),
        _ => None,
    };
    let saved = offset(6)?;
    if offset(16)? != Some(-8) {
        return None;
    }
    match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } if register.0 == 7 => {
            Row::from_rsp(*offset, saved)
        }
        CfaRule::RegisterAndOffset { register, offset } if register.0 == 6 => {
            Row::from_rbp(*offset, saved)
        }
        _ => None,
    }
}

/// Compares all rows of one file; how many, and how many of them end a walk.
fn compare(path: &str) -> (usize, usize) {
    let data = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = object::File::parse(&*data).expect("an object file");
    let image = Image(
        file.segments()
            .map(|segment| {
                (
                    segment.address(),
                    segment.data().expect("its bytes").to_vec(),
                )
            })
            .collect(),
    );
    let section = file.section_by_name(".eh_frame").expect(".eh_frame");
    let header = file
        .section_by_name(".eh_frame_hdr")
        .expect(".eh_frame_hdr")
        .address();
    let bytes = section.data().expect("its bytes");
    let frame = EhFrame::new(bytes, NativeEndian);
    let bases = BaseAddresses::default()
        .set_eh_frame(section.address())
        .set_eh_frame_hdr(header);
    let mut context = UnwindContext::new();
    let (mut rows, mut ends) = (0, 0);
    let mut entries = frame.entries(&bases);
    while let Some(entry) = entries.next().expect("an entry") {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial.parse(EhFrame::cie_from_offset).expect("an FDE");
        // The linker left it out of the sorted table: code that was thrown away.
        if fde.len() == 0 || fde.initial_address() == 0 {
            continue;
        }
        let mut table = fde.rows(&frame, &bases, &mut context).expect("rows");
        while let Some(row) = table.next_row().expect("a row") {
            for pc in [row.start_address(), row.end_address() - 1] {
                if !(fde.initial_address()..fde.initial_address() + fde.len()).contains(&pc) {
                    continue;
                }
                let ours = heaplab_unwind::row(&image, header, pc);
                if fde.is_signal_trampoline() {
                    assert_eq!(ours, Some(Row::SIGNAL), "{path}: {pc:x}");
                    continue;
                }
                let aligned = matches!(row.cfa(), CfaRule::Expression(_));
                match expected(row) {
                    Some(row) => assert_eq!(ours, Some(row), "{path}: {pc:x}"),
                    None if aligned => assert!(ours.is_some(), "{path}: {pc:x}"),
                    None => assert_eq!(ours, Some(Row::END), "{path}: {pc:x}"),
                }
                rows += 1;
                ends += usize::from(ours == Some(Row::END));
            }
        }
    }
    assert_eq!(heaplab_unwind::row(&image, header, 0), None);
    assert_eq!(heaplab_unwind::row(&image, header, u64::MAX), None);
    (rows, ends)
}

#[test]
fn rows_are_gimlis() {
    let own = std::env::current_exe().expect("own path");
    let maps = fs::read_to_string("/proc/self/maps").expect("own mappings");
    let mut files = vec![own.to_string_lossy().into_owned()];
    for library in ["libc.so.6", "libgcc_s.so.1"] {
        let path = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.ends_with(library));
        files.extend(path.map(str::to_owned));
    }
    assert!(files.len() >= 2, "the C library is not mapped: {maps}");
    for file in files {
        let (rows, ends) = compare(&file);
        println!("{file}: {rows} addresses, {ends} of them end a walk");
        assert!(rows > 1000, "{file}: only {rows}");
        assert!(ends * 50 < rows, "{file}: {ends} of {rows} end a walk");
    }
}

struct Bytes(Vec<u8>);
impl Memory for Bytes {
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let at = usize::try_from(address.checked_sub(0x1000)?).ok()?;
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]
    /// A table that is none gives no row or any row, and always an end.
    #[test]
    fn hostile_tables_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 16..400), pc in 0x1000u64..0x1200) {
        // A header that is believed, so that the rest is reached.
        bytes[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
        bytes[8..12].copy_from_slice(&3u32.to_le_bytes());
        let entry = i32::from(bytes[12]);
        for at in [12usize, 20, 28] {
            if let Some(place) = bytes.get_mut(at..at + 8) {
                place[..4].copy_from_slice(&0i32.to_le_bytes());
                place[4..].copy_from_slice(&(36 + entry % 64).to_le_bytes());
            }
        }
        let _ = heaplab_unwind::row(&Bytes(bytes), 0x1000, pc);
    }
}
