//! What is planted, read once from the environment when the library is loaded. Zero is nothing.

use core::ffi::c_char;
use core::sync::atomic::{AtomicUsize, Ordering};

/// One setting: written while the library is loaded, when there is one thread, and only read afterwards.
pub struct Setting {
    name: &'static [u8],
    value: AtomicUsize,
}

impl Setting {
    const fn new(name: &'static [u8]) -> Self {
        Self {
            name,
            value: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    pub fn get(&self) -> usize {
        self.value.load(Ordering::Relaxed)
    }
}

/// Turns of an empty loop in every call: some instructions each.
pub static STEPS: Setting = Setting::new(b"steps");
/// Percent of a thread's CPU time that it takes longer.
pub static SLOWER: Setting = Setting::new(b"slower");
/// Percent of the bytes asked for that each block is larger.
pub static LARGER: Setting = Setting::new(b"larger");
/// Of so many frees one is forgotten.
pub static FORGETS: Setting = Setting::new(b"forgets");

static ALL: [&Setting; 4] = [&STEPS, &SLOWER, &LARGER, &FORGETS];

const VARIABLE: &core::ffi::CStr = c"HEAPLAB_PLANTED";

/// Called by the loader before `main`; calls before that find nothing planted.
#[used]
#[unsafe(link_section = ".init_array")]
static READ: extern "C" fn() = {
    extern "C" fn read() {
        // SAFETY: the name is a string that ends; the loader calls this before there is a thread that could change variables.
        let text = unsafe { libc::getenv(VARIABLE.as_ptr()) };
        if text.is_null() {
            return;
        }
        // SAFETY: what getenv gives is a string that ends, and stays while nobody changes the environment.
        take(unsafe { core::ffi::CStr::from_ptr(text.cast::<c_char>()) }.to_bytes());
    }
    read
};

/// `key=number,…`: what is neither a key nor a number is not taken, which reading back shows.
fn take(text: &[u8]) {
    for pair in text.split(|byte| *byte == b',') {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, digits) = (&pair[..at], &pair[at + 1..]);
        let Some(setting) = ALL.iter().find(|setting| setting.name == name) else {
            continue;
        };
        let value = core::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok());
        if let Some(value) = value {
            setting.value.store(value, Ordering::Relaxed);
        }
    }
}

/// Writes version and settings, a line each, as far as there is room; gives the bytes written.
pub fn describe(room: &mut [u8]) -> usize {
    let mut used = 0;
    let mut put = |part: &[u8]| {
        let length = part.len().min(room.len() - used);
        room[used..used + length].copy_from_slice(&part[..length]);
        used += length;
    };
    put(concat!("version=", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
    for setting in ALL {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = setting.get();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        put(setting.name);
        put(b"=");
        put(&digits[at..]);
        put(b"\n");
    }
    used
}
