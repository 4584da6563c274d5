//! Which allocators a bench measures, as its command line says.

use crate::{ALLOCATORS, Allocator};
use std::path::PathBuf;

/// Options that every table of several allocators has.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Also measure the malloc of this shared library; may be given several times.
    #[arg(long, value_name = "NAME=PATH", value_parser = library)]
    library: Vec<(String, PathBuf)>,
    /// Measure these allocators only; may be given several times. [default: all]
    #[arg(long, value_name = "NAME")]
    allocator: Vec<String>,
}

fn library(argument: &str) -> Result<(String, PathBuf), String> {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        _ => Err("a library is given as NAME=PATH".to_owned()),
    }
}

impl Choice {
    /// All allocators of the run, the system's last if it is one of them.
    ///
    /// # Errors
    /// A library that cannot be loaded, a name that nothing has.
    pub fn allocators(&self) -> Result<Vec<Allocator>, String> {
        let mut all = ALLOCATORS.to_vec();
        for (name, path) in &self.library {
            let place = all.len() - 1;
            all.insert(place, Allocator::load(name.clone(), path)?);
        }
        let wanted = &self.allocator;
        if let Some(unknown) = wanted
            .iter()
            .find(|name| all.iter().all(|allocator| allocator.name != **name))
        {
            let names: Vec<_> = all.iter().map(|allocator| allocator.name).collect();
            return Err(format!(
                "no allocator {unknown}; there are {}",
                names.join(", ")
            ));
        }
        if !wanted.is_empty() {
            all.retain(|allocator| wanted.iter().any(|name| name == allocator.name));
        }
        Ok(all)
    }
}
