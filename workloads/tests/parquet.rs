//! The Parquet form of a trace, read back: it says of every event what the CSV table says. Needs the feature `parquet`.
#![cfg(feature = "parquet")]

use heaplab_workloads::trace::{
    ResolveOptions, Trace, TraceError, export_csv, export_parquet, resolve_file,
};
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::path::Path;

#[test]
fn what_the_file_says_of_a_failure_is_passed_on() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.hltrace");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/raw-2.1.hltrace");
    resolve_file(&fixture, &path, &ResolveOptions::default(), &mut |_, _| {}).expect("resolved");
    let trace = Trace::open(&path).expect("a trace");
    let error = export_parquet(&trace, Gone, &mut |_, _| {}).expect_err("nobody reads");
    let TraceError::Io { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::BrokenPipe);
}

/// Without addresses and with them.
#[test]
fn a_parquet_file_says_what_the_table_says() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/raw-2.1.hltrace");
    for keep_addresses in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.hltrace");
        let options = ResolveOptions {
            keep_addresses,
            ..ResolveOptions::default()
        };
        resolve_file(&fixture, &path, &options, &mut |_, _| {}).expect("resolved");
        let trace = Trace::open(&path).expect("a trace");
        let mut table = Vec::new();
        export_csv(&trace, &mut table, &mut |_, _| {}).expect("a table");
        let file = tempfile::tempfile().expect("a file");
        let copy = file.try_clone().expect("a second handle");
        export_parquet(&trace, copy, &mut |_, _| {}).expect("written");

        let reader = SerializedFileReader::new(file).expect("a Parquet file");
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<&str> = schema
            .columns()
            .iter()
            .map(|column| column.name())
            .collect();
        let mut lines = std::str::from_utf8(&table).expect("text").lines();
        assert_eq!(Some(names.join(",").as_str()), lines.next());
        assert_eq!(names.contains(&"address"), keep_addresses);
        let mut count = 0;
        for row in reader.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let values: Vec<String> = row
                .get_column_iter()
                .map(|(_, value)| value.to_string().trim_matches('"').to_owned())
                .collect();
            assert_eq!(Some(values.join(",").as_str()), lines.next());
            count += 1;
        }
        assert_eq!(lines.next(), None);
        assert_eq!(count, trace.summary().events);
        assert!(count > 0);
    }
}
