//! Instructions an event (callgrind): exact on a loaded machine.

use super::{Bench, Result, name, recorded_and_dropped};
use std::path::Path;
use std::process::Command;

impl Bench {
    /// The difference of two lengths, so that start and end cancel out.
    pub fn instructions(&self, pairs: u64) -> Result<()> {
        println!("instructions an event (callgrind), one thread");
        for mode in ["random", "pair"] {
            let bare = self.an_event(mode, pairs, None)?;
            println!("{mode:<8} bare {bare:.1}");
            for library in &self.recorders {
                let recorded = self.an_event(mode, pairs, Some(library))?;
                println!(
                    "{:<8} {} {recorded:.1}, hook {:.1}",
                    "",
                    name(library),
                    recorded - bare
                );
            }
        }
        Ok(())
    }

    fn an_event(&self, mode: &str, pairs: u64, library: Option<&Path>) -> Result<f64> {
        let short = self.callgrind(mode, pairs, library)?;
        let long = self.callgrind(mode, pairs * 2, library)?;
        // The tight loop warms up with a tenth of its pairs.
        let made = match mode {
            "pair" => pairs as f64 * 1.1,
            _ => pairs as f64,
        };
        Ok((long as f64 - short as f64) / made / 2.0)
    }

    fn callgrind(&self, mode: &str, pairs: u64, library: Option<&Path>) -> Result<u64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command
            .arg(&self.program)
            .args([mode, "1", &pairs.to_string()]);
        let output = match library {
            Some(library) => recorded_and_dropped(library, &mut command, pairs * 2)?,
            None => command.output()?,
        };
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .find_map(|line| line.split_once("Collected : "));
        let (_, count) = line.ok_or_else(|| format!("callgrind said: {text}"))?;
        Ok(count.trim().parse()?)
    }
}
