//! heaplab-worker.
fn main() {}
