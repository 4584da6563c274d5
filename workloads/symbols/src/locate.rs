//! Which files hold what is known of a module.

use crate::Options;
use object::{Object, ObjectSection};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a module at most: a trace may name anything as one. Browsers with debug information have 2 GiB.
const MOST_BYTES: u64 = 4096 * heaplab_bounded::MIB;

/// The files of a module.
#[derive(Debug)]
pub struct Located {
    /// The module itself.
    pub file: PathBuf,
    /// The file with its debug information, if there is one.
    pub debug: Option<PathBuf>,
    /// What that file shares with others (`dwz`).
    pub supplement: Option<PathBuf>,
}

/// A module's or debug file's content.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    heaplab_bounded::read(path, MOST_BYTES)
}

/// Finds the files; the error says why none can be believed.
pub fn locate(path: &Path, build_id: &str, options: &Options) -> Result<Located, String> {
    let separate = by_build_id(build_id, options);
    let data = match read(path) {
        Ok(data) => data,
        Err(error) => {
            // The module is gone, but its separate debug file tells everything.
            return separate
                .map(|debug| Located {
                    supplement: supplement(&debug, options),
                    file: debug.clone(),
                    debug: Some(debug),
                })
                .ok_or_else(|| format!("it cannot be read here: {error}"));
        }
    };
    let file =
        object::File::parse(&*data).map_err(|error| format!("it is no object file: {error}"))?;
    let found = file.build_id().ok().flatten().map(hex).unwrap_or_default();
    if !build_id.is_empty() && found != build_id {
        return Err("the file here is another build than the one that was recorded".into());
    }
    let has_dwarf = |file: &object::File<'_>| {
        [".debug_info", ".debug_line"].iter().any(|name| {
            file.section_by_name(name)
                .is_some_and(|section| section.size() > 0)
        })
    };
    let debug = if has_dwarf(&file) {
        Some(path.to_path_buf())
    } else {
        separate.or_else(|| by_link(&file, path, &found, options))
    };
    Ok(Located {
        supplement: debug
            .as_deref()
            .and_then(|debug| supplement(debug, options)),
        file: path.to_path_buf(),
        debug,
    })
}

/// `<root>/.build-id/ab/cdef….debug`
fn by_build_id(build_id: &str, options: &Options) -> Option<PathBuf> {
    let (first, rest) = build_id
        .split_at_checked(2)
        .filter(|(_, rest)| !rest.is_empty())?;
    let path = options
        .debug_root
        .join(".build-id")
        .join(first)
        .join(format!("{rest}.debug"));
    path.is_file().then_some(path)
}

/// The file named by the section `.gnu_debuglink`, in the places where gdb looks. Only where both have the same build id.
fn by_link(
    file: &object::File<'_>,
    path: &Path,
    build_id: &str,
    options: &Options,
) -> Option<PathBuf> {
    let (name, _) = file.gnu_debuglink().ok().flatten()?;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let folder = path.parent()?;
    let below_root = options
        .debug_root
        .join(folder.strip_prefix("/").unwrap_or(folder));
    [folder.to_path_buf(), folder.join(".debug"), below_root]
        .into_iter()
        .map(|place| place.join(name))
        .find(|candidate| {
            candidate != path
                && !build_id.is_empty()
                && build_id_of(candidate).as_deref() == Some(build_id)
        })
}

fn supplement(debug: &Path, options: &Options) -> Option<PathBuf> {
    let data = read(debug).ok()?;
    let file = object::File::parse(&*data).ok()?;
    let (name, id) = file.gnu_debugaltlink().ok().flatten()?;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let linked = debug.parent()?.join(name);
    let wanted = hex(id);
    [Some(linked), by_build_id(&wanted, options)]
        .into_iter()
        .flatten()
        .find(|candidate| build_id_of(candidate).as_deref() == Some(&wanted))
}

fn build_id_of(path: &Path) -> Option<String> {
    let data = read(path).ok()?;
    let file = object::File::parse(&*data).ok()?;
    file.build_id().ok().flatten().map(hex)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
