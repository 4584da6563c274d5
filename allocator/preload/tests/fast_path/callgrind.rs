//! Programs under callgrind, and how often each instruction of a file ran.

use crate::common::{library, scratch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How often each instruction ran, by its address in the file.
pub type Executed = BTreeMap<u64, u64>;

/// One run: what the program printed, and its dumps.
pub struct Run {
    pub said: String,
    folder: PathBuf,
}

/// Settings under which nothing hangs on the clock, on what the kernel can do, or on where in memory things are.
const STEADY: &str = "decay_ms=-1,helper=0,populate=0,huge_pages=0,move_pages=0";

impl Run {
    /// Runs `program`, which turns collecting on and off itself. `preload`: with the library, under these settings.
    pub fn new(name: &str, program: &Path, preload: Option<&str>) -> Self {
        let folder = scratch().join("fast_path").join(name);
        // Dumps of an earlier run would be taken for this one's.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let mut command = Command::new("valgrind");
        command
            .args([
                "--tool=callgrind",
                "--dump-instr=yes",
                "--collect-atstart=no",
                "--compress-pos=no",
                "--compress-strings=no",
                "--soname-synonyms=somalloc=nouserintercepts",
            ])
            .arg(format!(
                "--callgrind-out-file={}",
                folder.join("dump").display()
            ))
            .arg(program)
            .env(
                "SPANALLOC_CONF",
                format!("{STEADY},{}", preload.unwrap_or("")),
            );
        if preload.is_some() {
            command.env("LD_PRELOAD", library());
        }
        let output = command.output().expect("valgrind runs (package valgrind)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
            folder,
        }
    }

    /// What dump `number`, counted from 0, says of `file`, whose instructions outside `.text` are counted as the process's from `base` on.
    pub fn executed(&self, number: usize, file: &Path, base: u64) -> Executed {
        let dump = self.folder.join(format!("dump.{}", number + 1));
        let text = std::fs::read_to_string(&dump)
            .unwrap_or_else(|error| panic!("{} is no dump of callgrind: {error}", dump.display()));
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let mut found = Executed::new();
        let (mut ours, mut of_call) = (false, false);
        let mut bias = 0;
        for line in text.lines() {
            if let Some(object) = line.strip_prefix("ob=") {
                let unknown = object == "???";
                ours = unknown || object.ends_with(name);
                bias = if unknown { base } else { 0 };
            } else if line.starts_with("calls=") {
                // The next line is the cost of the whole call.
                of_call = true;
            } else if let Some(rest) = line.strip_prefix("0x") {
                let mut fields = rest.split_whitespace();
                let address = fields
                    .next()
                    .and_then(|hex| u64::from_str_radix(hex, 16).ok());
                let count = fields.nth(1).and_then(|count| count.parse::<u64>().ok());
                if let (Some(address), Some(count)) = (address, count)
                    && ours
                    && !of_call
                {
                    *found.entry(address.wrapping_sub(bias)).or_default() += count;
                }
                of_call = false;
            }
        }
        found
    }
}
