//! Which module an address lies in, by glibc's `_dl_find_object` (2.35 and later: lock-free, made
//! for unwinders in signal handlers), and telling the drainer of each module once an epoch.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use heaplab_hook::{session, thread};
use heaplab_ring::stack::{BYTES_PER_RECORD, MODULE_HEADER, pack_bytes};
use heaplab_ring::{Kind, sys};
use heaplab_unwind::{Memory, Row};

use crate::deepbind::loaded::LinkMap;

/// `struct dl_find_object` of x86-64.
#[repr(C)]
struct Found {
    flags: u64,
    start: usize,
    end: usize,
    link_map: *const LinkMap,
    eh_frame_header: usize,
    reserved: [u64; 7],
}

type Find = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

const UNRESOLVED: usize = 0;
const RESOLVING: usize = 1;
const MISSING: usize = 2;
static FIND: AtomicUsize = AtomicUsize::new(UNRESOLVED);

/// How often code was unloaded, or the process became another one by fork.
static EPOCH: AtomicU32 = AtomicU32::new(0);
/// The process that the epoch belongs to.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// First addresses of the modules that were told of, with the epoch in the low bits of the page.
static TOLD: [AtomicUsize; 1024] = [const { AtomicUsize::new(0) }; 1024];

/// The present epoch: what was cached or defined in another one means nothing now.
#[inline(always)]
pub fn epoch() -> u16 {
    if PROCESS.load(Ordering::Relaxed) != session::process() {
        new_process();
    }
    EPOCH.load(Ordering::Relaxed) as u16
}

#[cold]
fn new_process() {
    if PROCESS.swap(session::process(), Ordering::Relaxed) != 0 {
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks the loader for its function, once.
pub fn resolve() {
    if FIND
        .compare_exchange(UNRESOLVED, RESOLVING, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // SAFETY: the name is zero-terminated. Where it is found nothing is allocated.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    let found = if found.is_null() {
        MISSING
    } else {
        found as usize
    };
    FIND.store(found, Ordering::Relaxed);
}

/// C `dlclose`: addresses of what was closed may come to mean something else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    type Close = unsafe extern "C" fn(*mut c_void) -> c_int;
    // SAFETY: the name is zero-terminated; the result is null or libc's dlclose, of this type.
    let next = unsafe {
        core::mem::transmute::<*mut c_void, Option<Close>>(libc::dlsym(
            libc::RTLD_NEXT,
            c"dlclose".as_ptr(),
        ))
    };
    let Some(next) = next else { return -1 };
    // SAFETY: the caller's promise about the handle is passed on.
    let status = unsafe { next(handle) };
    EPOCH.fetch_add(1, Ordering::Relaxed);
    status
}

/// `ret` instructions that calls were made to return to (`deepbind`). Who looks at such a call sees the code before the `ret`, which
/// was not run: its tables say nothing of the stack.
static RETS: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

/// A call is about to be made that returns to the `ret` at this address.
pub fn will_return_to(ret: usize) {
    for place in &RETS {
        match place.compare_exchange(0, ret, Ordering::Relaxed, Ordering::Relaxed) {
            Err(there) if there != ret => {}
            _ => return,
        }
    }
}

/// The row of `pc`. `None`: it cannot be asked for now.
pub fn row(pc: u64, epoch: u16) -> Option<Row> {
    let after = (pc as usize).wrapping_add(1);
    if RETS.iter().any(|ret| ret.load(Ordering::Relaxed) == after) {
        return Row::from_rsp(8, None);
    }
    if FIND.load(Ordering::Relaxed) == UNRESOLVED {
        resolve();
    }
    let find = match FIND.load(Ordering::Relaxed) {
        UNRESOLVED | RESOLVING => return None,
        MISSING => return Some(Row::CHAIN),
        // SAFETY: dlsym found this address under the function's name.
        address => unsafe { core::mem::transmute::<usize, Find>(address) },
    };
    let mut found = Found {
        flags: 0,
        start: 0,
        end: 0,
        link_map: core::ptr::null(),
        eh_frame_header: 0,
        reserved: [0; 7],
    };
    // SAFETY: any address may be asked for; the function fills the struct and locks nothing.
    if unsafe { find(pc as usize as *mut c_void, &mut found) } != 0 {
        return Some(Row::CHAIN);
    }
    let module = Module {
        start: found.start,
        end: found.end,
    };
    tell(&module, &found, epoch);
    let row = match found.eh_frame_header {
        0 => None,
        header => heaplab_unwind::row(&module, header as u64, pc),
    };
    Some(row.unwrap_or(Row::CHAIN))
}

/// The mapping of a loaded module.
struct Module {
    start: usize,
    end: usize,
}

impl Memory for Module {
    #[inline(always)]
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let address = address as usize;
        let end = address.checked_add(N)?;
        if address < self.start || end > self.end {
            return None;
        }
        // SAFETY: inside a module that the loader has mapped, and that stays mapped while code of it
        // is on this thread's stack. Unwind tables and headers lie in its read-only segments; tables
        // that point into a gap between segments would be a corrupt library.
        Some(unsafe { core::ptr::read_unaligned(address as *const [u8; N]) })
    }
}

/// Tells the drainer of a module, once an epoch.
fn tell(module: &Module, found: &Found, epoch: u16) {
    let mark = module.start & !0xfff | usize::from(epoch & 0xfff);
    let first = (module.start >> 12).wrapping_mul(0x9e37_79b9) >> 4;
    for step in 0..TOLD.len() {
        let place = &TOLD[(first + step) % TOLD.len()];
        let there = place.load(Ordering::Relaxed);
        if there == mark {
            return;
        }
        // Empty, or of an epoch that is over.
        if (there == 0 || there & 0xfff != mark & 0xfff)
            && place
                .compare_exchange(there, mark, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            break;
        }
    }
    let mut exe = [0u8; 512];
    // SAFETY: the loader's structure of a module that is on this thread's stack, see above; its
    // name is a zero-terminated string.
    let (bias, name) = unsafe {
        let map = &*found.link_map;
        let name = if map.name.is_null() {
            c""
        } else {
            CStr::from_ptr(map.name)
        };
        (map.bias, name.to_bytes())
    };
    // The program itself has no name there.
    let name = if name.is_empty() {
        let length = sys::readlink(b"/proc/self/exe\0", &mut exe).unwrap_or(0);
        exe.get(..length).unwrap_or(&[])
    } else {
        name
    };
    let id = build_id(module, bias).unwrap_or((0, 0));
    describe(module, bias, id, name, epoch);
}

fn describe(module: &Module, bias: usize, id: (usize, usize), name: &[u8], epoch: u16) {
    let (id_address, id_length) = id;
    let name_length = name.len().min(4096);
    let mut header = [0u8; MODULE_HEADER];
    header[0] = id_length as u8;
    header[2..4].copy_from_slice(&(name_length as u16).to_le_bytes());
    for (place, word) in header[4..]
        .chunks_exact_mut(8)
        .zip([bias, module.start, module.end])
    {
        place.copy_from_slice(&(word as u64).to_le_bytes());
    }
    let total = MODULE_HEADER + id_length + name_length;
    let byte = |at: usize| {
        if let Some(&byte) = header.get(at) {
            return byte;
        }
        let at = at - MODULE_HEADER;
        if at < id_length {
            let address = (id_address + at) as u64;
            return module.bytes::<1>(address).map_or(0, |[byte]| byte);
        }
        name.get(at - id_length).copied().unwrap_or(0)
    };
    let mut at = 0;
    // As with stacks: the drainer takes the last bytes before the module's record.
    while at < total {
        let piece: [u8; BYTES_PER_RECORD] = core::array::from_fn(|offset| byte(at + offset));
        let (word, address) = pack_bytes(&piece);
        thread::describe(Kind::Bytes, word, address);
        at += BYTES_PER_RECORD;
    }
    let note = u64::from(epoch) | (total as u64) << 16;
    thread::describe(Kind::Module, note, 0);
}

/// Address and length of a module's build id, by its program headers as they lie in memory.
fn build_id(module: &Module, bias: usize) -> Option<(usize, usize)> {
    const PT_NOTE: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    let at = |offset: u64| module.start as u64 + offset;
    if &module.bytes::<4>(at(0))? != b"\x7fELF" {
        return None;
    }
    let headers = u64::from_le_bytes(module.bytes(at(32))?);
    let size = u64::from(u16::from_le_bytes(module.bytes(at(54))?));
    let count = u64::from(u16::from_le_bytes(module.bytes(at(56))?));
    for index in 0..count {
        let header = at(headers.checked_add(index * size)?);
        if u32::from_le_bytes(module.bytes(header)?) != PT_NOTE {
            continue;
        }
        let address = u64::from_le_bytes(module.bytes(header + 16)?);
        let length = u64::from_le_bytes(module.bytes(header + 40)?).min(4096);
        let mut note = (bias as u64).wrapping_add(address);
        let end = note.checked_add(length)?;
        while note + 12 <= end {
            let word = |offset: u64| Some(u32::from_le_bytes(module.bytes(note + offset)?));
            let (name, bytes, kind) = (u64::from(word(0)?), u64::from(word(4)?), word(8)?);
            let body = note + 12 + name.next_multiple_of(4);
            if kind == NT_GNU_BUILD_ID && name == 4 && module.bytes(note + 12)? == *b"GNU\0" {
                return Some((body as usize, (bytes as usize).min(64)));
            }
            note = body.checked_add(bytes.next_multiple_of(4))?;
        }
    }
    None
}
