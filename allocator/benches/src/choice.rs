//! Which allocators a bench measures, as its command line says.

use crate::{ALLOCATORS, Allocator};
use std::path::PathBuf;

/// Options that every table of several allocators has.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Also measure the malloc of this shared library, with these settings if it is spanalloc's; may be given several times.
    #[arg(long, value_name = "NAME=PATH[:SETTINGS]", value_parser = library)]
    library: Vec<Library>,
    /// Measure these allocators only; may be given several times. [default: all]
    #[arg(long, value_name = "NAME")]
    allocator: Vec<String>,
}

/// A library on the command line.
#[derive(Clone, Debug)]
struct Library {
    name: String,
    path: PathBuf,
    /// What its `SPANALLOC_CONF` is.
    settings: Option<String>,
}

fn library(argument: &str) -> Result<Library, String> {
    match argument.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => {
            let (path, settings) = match rest.split_once(':') {
                Some((path, settings)) => (path, Some(settings.to_owned())),
                None => (rest, None),
            };
            Ok(Library {
                name: name.to_owned(),
                path: path.into(),
                settings,
            })
        }
        _ => Err("a library is given as NAME=PATH or NAME=PATH:KEY=VALUE,KEY=VALUE".to_owned()),
    }
}

impl Library {
    /// Loads it; its settings are read meanwhile.
    fn load(&self) -> Result<Allocator, String> {
        const SETTINGS: &str = "SPANALLOC_CONF";
        let Some(settings) = &self.settings else {
            return Allocator::load(self.name.clone(), &self.path);
        };
        let before = std::env::var_os(SETTINGS);
        // SAFETY: the command line is read before any thread is started.
        unsafe { std::env::set_var(SETTINGS, settings) };
        let loaded = Allocator::load(self.name.clone(), &self.path);
        match before {
            // SAFETY: as above.
            Some(before) => unsafe { std::env::set_var(SETTINGS, before) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(SETTINGS) },
        }
        loaded
    }
}

impl Choice {
    /// All allocators of the run, the system's last if it is one of them.
    ///
    /// # Errors
    /// A library that cannot be loaded, a name that nothing has.
    pub fn allocators(&self) -> Result<Vec<Allocator>, String> {
        let mut all = ALLOCATORS.to_vec();
        for library in &self.library {
            let loaded = library.load()?;
            if let Some(first) = all
                .iter()
                .find(|other| std::ptr::fn_addr_eq(other.malloc, loaded.malloc))
            {
                return Err(format!(
                    "{} is loaded as {} already; a copy of the file can have settings of its own",
                    library.path.display(),
                    first.name
                ));
            }
            let place = all.len() - 1;
            all.insert(place, loaded);
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
