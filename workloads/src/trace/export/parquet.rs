//! Events as a Parquet file, for DuckDB, pandas, Polars and the like.

use super::csv::BlockNames;
use crate::trace::error::TraceError;
use crate::trace::event::TICK_NS;
use crate::trace::reader::Trace;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Events of a row group: what is in memory at a time.
const GROUP: usize = 1 << 18;

#[derive(Default)]
struct Columns {
    events: Vec<i64>,
    times: Vec<i64>,
    threads: Vec<i32>,
    calls: Vec<ByteArray>,
    blocks: Vec<i64>,
    sizes: Vec<i64>,
    alignments: Vec<i64>,
    /// Only where they were kept.
    addresses: Option<Vec<i64>>,
}

fn failed(error: ParquetError) -> TraceError {
    let error = match error {
        // What the file said: a reader that has gone is no failure.
        ParquetError::External(of_file) => match of_file.downcast::<std::io::Error>() {
            Ok(error) => *error,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    };
    TraceError::io("write", Path::new("the table"), error)
}

/// Writes the events as Parquet, with the columns of [`super::export_csv`].
pub fn export_parquet<W: Write + Send>(
    trace: &Trace,
    out: W,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let column = |name: &str, physical, logical| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
            .map_err(failed)
    };
    let kept = trace.has_addresses()?;
    let mut fields = vec![
        column("event", Physical::INT64, None)?,
        column("time_ns", Physical::INT64, None)?,
        column("thread", Physical::INT32, None)?,
        column("call", Physical::BYTE_ARRAY, Some(LogicalType::String))?,
        column("block", Physical::INT64, None)?,
        column("size", Physical::INT64, None)?,
        column("alignment", Physical::INT64, None)?,
    ];
    if kept {
        fields.push(column("address", Physical::INT64, None)?);
    }
    let schema = Type::group_type_builder("event")
        .with_fields(fields)
        .build()
        .map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer =
        SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
    let mut columns = Columns {
        addresses: kept.then(Vec::new),
        ..Columns::default()
    };
    let mut names = BlockNames::default();
    let total = trace.summary().events;
    for (count, event) in (0u64..).zip(trace.events()) {
        let event = event?;
        columns.events.push(count as i64);
        columns
            .times
            .push(event.tick.saturating_mul(TICK_NS) as i64);
        columns.threads.push(event.thread as i32);
        columns.calls.push(ByteArray::from(event.kind.name()));
        columns.blocks.push(names.of(&event) as i64);
        columns.sizes.push(event.size as i64);
        columns.alignments.push(match event.align_log2 {
            0 => 0,
            log2 => 1i64 << log2,
        });
        if let Some(addresses) = &mut columns.addresses {
            addresses.push(event.address as i64);
        }
        if columns.events.len() == GROUP {
            columns.write(&mut writer)?;
            progress(count, total);
        }
    }
    if !columns.events.is_empty() {
        columns.write(&mut writer)?;
    }
    writer.close().map(drop).map_err(failed)
}

impl Columns {
    fn write<W: Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
    ) -> Result<(), TraceError> {
        let mut group = writer.next_row_group().map_err(failed)?;
        put::<Int64Type, W>(&mut group, &mut self.events)?;
        put::<Int64Type, W>(&mut group, &mut self.times)?;
        put::<Int32Type, W>(&mut group, &mut self.threads)?;
        put::<ByteArrayType, W>(&mut group, &mut self.calls)?;
        put::<Int64Type, W>(&mut group, &mut self.blocks)?;
        put::<Int64Type, W>(&mut group, &mut self.sizes)?;
        put::<Int64Type, W>(&mut group, &mut self.alignments)?;
        if let Some(addresses) = &mut self.addresses {
            put::<Int64Type, W>(&mut group, addresses)?;
        }
        group.close().map(drop).map_err(failed)
    }
}

fn put<D: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &mut Vec<D::T>,
) -> Result<(), TraceError> {
    let column = group.next_column().map_err(failed)?;
    let mut column =
        column.ok_or_else(|| failed(ParquetError::General("a column is missing".into())))?;
    column
        .typed::<D>()
        .write_batch(values, None, None)
        .map_err(failed)?;
    values.clear();
    column.close().map_err(failed)
}
