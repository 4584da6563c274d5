//! Heap profiles: the schema of `profile.json` and everything made from it.
//!
//! `schema` is the data, `sites` decides which call of a stack is the program's own and adds up by it, `callers` who
//! asked for it, `table` is the terminal, `collapsed`, `flame`, `pprof` and `html` are files. Nothing here reads traces or resolves names.

mod callers;
mod collapsed;
mod flame;
mod html;
mod pprof;
mod schema;
mod sites;
mod table;

pub use schema::{
    Amount, Costs, Location, Measured, Metric, ModuleNames, PROFILE_SCHEMA, Profile, Sampling,
    Site, StackCosts, Totals,
};
pub use sites::sites;
pub use table::render;

use crate::error::ReportError;
use crate::store::write_atomic;
use std::path::{Path, PathBuf};

/// Writes a profile's files into a folder: `profile.json`, `profile.html`, `profile.pb.gz`, and for each metric that has
/// anything `collapsed-<metric>.txt` and `flamegraph-<metric>.svg`. The names of the files, in this order.
///
/// # Errors
/// When a file cannot be written.
pub fn write(profile: &Profile, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let mut written = Vec::new();
    let mut put = |name: String, bytes: &[u8]| {
        let path = folder.join(&name);
        write_atomic(&path, bytes)?;
        written.push(PathBuf::from(name));
        Ok::<_, ReportError>(())
    };
    let json =
        serde_json::to_vec(profile).map_err(|error| ReportError::write(folder, error.into()))?;
    put("profile.json".into(), &json)?;
    put("profile.html".into(), html::render(profile)?.as_bytes())?;
    let pprof = pprof::encode(profile).map_err(|error| ReportError::write(folder, error))?;
    put("profile.pb.gz".into(), &pprof)?;
    for metric in Metric::ALL {
        let lines = collapsed::lines(profile, metric);
        if lines.is_empty() {
            continue;
        }
        put(
            format!("collapsed-{}.txt", metric.stem()),
            (lines.join("\n") + "\n").as_bytes(),
        )?;
        let svg = flame::svg(profile, metric, &lines)
            .map_err(|error| ReportError::write(folder, error))?;
        put(format!("flamegraph-{}.svg", metric.stem()), &svg)?;
    }
    Ok(written)
}
