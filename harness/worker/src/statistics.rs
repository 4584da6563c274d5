//! What the subject counts itself, at the end of a run while its live blocks are still there (`heaplab-statistics`).

use crate::calls;
use serde_json::Value;
use std::ffi::CStr;
use std::ptr;

/// Room for what a subject prints.
const TEXT: usize = 64 << 10;

/// The statistics of the library `object`; absent where it has none that are known.
pub fn read(object: &str) -> Option<Value> {
    let find = |name: &CStr| calls::own_symbol(object, name).unwrap_or(ptr::null_mut());
    let mut text = vec![0; TEXT];
    // SAFETY: `own_symbol` gives functions of the subject only, and no call of the subject is under way.
    let used = unsafe { heaplab_statistics::write(&find, &mut text) }?;
    serde_json::from_slice(&text[..used]).ok()
}
