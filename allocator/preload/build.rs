//! Passes the layout of the library to the linker, and that it is never unloaded: threads that have used it end in it.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{folder}/layout.ld");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
