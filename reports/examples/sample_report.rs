//! Writes a report of invented figures, to look at the layout: `cargo run --example sample_report -- DIR`.

#[path = "../tests/common/mod.rs"]
mod common;

fn main() -> Result<(), heaplab_reports::ReportError> {
    let dir = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "sample-report".into());
    let single = std::env::args().any(|a| a == "--single");
    let result = if single {
        common::single()
    } else {
        common::result_set()
    };
    heaplab_reports::save_atomic(&result, dir.as_ref())?;
    heaplab_reports::write_report(
        &result,
        dir.as_ref(),
        &heaplab_reports::ReportOptions::default(),
    )?;
    print!(
        "{}",
        heaplab_reports::table::render(&result, heaplab_reports::Style::Plain, None)
    );
    Ok(())
}
