//! The Parquet form of a trace, read back: every event with what it says. Needs the feature `parquet`.
#![cfg(feature = "parquet")]

use heaplab_workloads::trace::{Trace, export_parquet};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::path::Path;

#[test]
fn a_parquet_file_holds_every_event() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2.0.hltrace");
    let trace = Trace::open(&fixture).expect("a trace");
    let file = tempfile::tempfile().expect("a file");
    let copy = file.try_clone().expect("a second handle");
    export_parquet(&trace, copy, &mut |_, _| {}).expect("written");
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let rows = reader.get_row_iter(None).expect("rows");
    let mut count = 0;
    for (row, event) in rows.zip(trace.events()) {
        let (row, event) = (row.expect("a row"), event.expect("an event"));
        assert_eq!(row.get_long(0).expect("event"), count);
        assert_eq!(row.get_long(1).expect("time") as u64, event.tick * 100);
        assert_eq!(row.get_int(2).expect("thread") as u32, event.thread);
        assert_eq!(row.get_string(3).expect("call"), event.kind.name());
        assert_eq!(row.get_long(5).expect("size") as u64, event.size);
        count += 1;
    }
    let summary = trace.summary();
    assert_eq!(count as u64, summary.events);
    let told = reader.metadata().file_metadata().num_rows();
    assert_eq!(told as u64, summary.events);
}
