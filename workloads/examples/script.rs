//! Compiles a workload into a script and says how fast: `cargo run --release --example script -- churn FOLDER`.

use heaplab_workloads::{Params, Workload};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: script WORKLOAD FOLDER [SCALE]".into());
    };
    let scale = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let params = Params {
        scale,
        ..Params::default()
    };
    let start = Instant::now();
    let script = Workload::resolve(&name)?.compile(&params, folder.as_ref(), &mut |_, _| {})?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}\n{:#?}", script.path.display(), script.info);
    println!("{:.1} M ops/s", script.info.calls as f64 / seconds / 1e6);
    Ok(())
}
