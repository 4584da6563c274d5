//! `heaplab licenses`: the licence texts of everything that travels inside the binary.

use crate::error::{Error, Outcome};
use crate::out;

/// What travels inside, under which licence, and the text.
const PARTS: [(&str, &str, &str); 8] = [
    (
        "heaplab and spanalloc",
        "MIT OR Apache-2.0",
        include_str!("../../licenses/heaplab.txt"),
    ),
    (
        "jemalloc (embedded library)",
        "BSD-2-Clause",
        include_str!("../../licenses/jemalloc.txt"),
    ),
    (
        "tikv-jemalloc-sys (binding)",
        "MIT OR Apache-2.0",
        include_str!("../../licenses/jemalloc-sys.txt"),
    ),
    (
        "mimalloc, v2 and v3 (embedded libraries)",
        "MIT",
        include_str!("../../licenses/mimalloc.txt"),
    ),
    (
        "libmimalloc-sys (binding)",
        "MIT",
        include_str!("../../licenses/mimalloc-sys.txt"),
    ),
    (
        "libc and other Rust crates",
        "MIT OR Apache-2.0",
        include_str!("../../licenses/libc-crate.txt"),
    ),
    (
        "inferno (flame graphs)",
        "CDDL-1.0",
        include_str!("../../licenses/inferno.txt"),
    ),
    (
        "DejaVu fonts (charts)",
        "Bitstream Vera",
        include_str!("../../../reports/assets/DejaVu-LICENSE.txt"),
    ),
];
const APACHE: &str = include_str!("../../licenses/apache-2.0.txt");

/// Prints the texts.
///
/// # Errors
/// If standard output cannot be written.
pub fn run() -> Result<Outcome, Error> {
    let mut text = String::from("What travels inside the heaplab binary:\n\n");
    for (name, licence, _) in PARTS {
        text.push_str(&format!("  {name}: {licence}\n"));
    }
    for (name, licence, words) in PARTS {
        text.push_str(&format!(
            "\n{}\n{name}: {licence}\n{}\n{}\n",
            "=".repeat(80),
            "-".repeat(80),
            words.trim_end()
        ));
    }
    text.push_str(&format!(
        "\n{}\nApache License 2.0\n{}\n{APACHE}",
        "=".repeat(80),
        "-".repeat(80)
    ));
    out::print(&text)?;
    Ok(Outcome::Done)
}
