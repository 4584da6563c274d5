//! Names by the symbol tables of a file, for code without DWARF.

use crate::locate::{Located, read};
use object::{Object, ObjectSymbol, ObjectSymbolTable, SymbolKind};

/// Functions by address.
#[derive(Debug, Default)]
pub struct Table {
    /// First address, address behind the last one, name; sorted.
    functions: Vec<(u64, u64, String)>,
}

impl Table {
    /// Reads the tables of the file and of its separate debug file: static and dynamic.
    pub fn read(located: &Located) -> Self {
        let mut functions = Vec::new();
        for path in [Some(&located.file), located.debug.as_ref()]
            .into_iter()
            .flatten()
        {
            if let Ok(data) = read(path)
                && let Ok(file) = object::File::parse(&*data)
            {
                collect(&file, &mut functions);
            }
            if located.debug.as_ref() == Some(&located.file) {
                break;
            }
        }
        // At the same address the longest wins, then the one whose name says more.
        functions.sort_by(|a: &(u64, u64, String), b| {
            (a.0, b.1, underscores(&a.2), a.2.len(), &a.2).cmp(&(
                b.0,
                a.1,
                underscores(&b.2),
                b.2.len(),
                &b.2,
            ))
        });
        functions.dedup_by_key(|(start, ..)| *start);
        Self { functions }
    }

    /// There are no names at all.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function that the address lies in. None for an address behind the end of one: in a stripped
    /// file the next smaller name belongs to other code.
    pub fn find(&self, address: u64) -> Option<&str> {
        let at = self
            .functions
            .partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.functions.get(at.checked_sub(1)?)?;
        (address < *end).then_some(name.as_str())
    }
}

fn underscores(name: &str) -> usize {
    if name.starts_with("_Z") || name.starts_with("_R") {
        return 0;
    }
    name.len() - name.trim_start_matches('_').len()
}

fn collect(file: &object::File<'_>, functions: &mut Vec<(u64, u64, String)>) {
    let tables = [file.symbol_table(), file.dynamic_symbol_table()];
    for symbol in tables.iter().flatten().flat_map(|table| table.symbols()) {
        if symbol.is_undefined() || symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        if let Ok(name) = symbol.name()
            && !name.is_empty()
        {
            let start = symbol.address();
            functions.push((start, start.saturating_add(symbol.size()), name.to_owned()));
        }
    }
}
