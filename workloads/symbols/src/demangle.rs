//! Readable names.

use cpp_demangle::DemangleOptions;

/// The name as its author wrote it: Rust paths without hashes, C++ without parameters. Other names
/// stay as they are.
pub fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    // Symbols of other versions: `malloc@@GLIBC_2.2.5`.
    let plain = name.split('@').next().unwrap_or(name);
    if plain.starts_with("_Z") {
        let options = DemangleOptions::new().no_params().no_return_type();
        if let Ok(symbol) = cpp_demangle::Symbol::new(plain)
            && let Ok(readable) = symbol.demangle_with_options(&options)
        {
            return readable;
        }
    }
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_three_languages_are_readable() {
        for (mangled, readable) in [
            ("main", "main"),
            (
                "_ZN4core3ptr8non_null16NonNull$LT$T$GT$6as_ptr17h0123456789abcdefE",
                "core::ptr::non_null::NonNull<T>::as_ptr",
            ),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            (
                "_ZN3lab5Cache6insertERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
                "lab::Cache::insert",
            ),
            ("_Znwm", "operator new"),
            ("malloc@@GLIBC_2.2.5", "malloc"),
            ("_Zbroken", "_Zbroken"),
        ] {
            assert_eq!(demangle(mangled), readable);
        }
    }
}
