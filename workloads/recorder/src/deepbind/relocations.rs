//! The places in which the loader has put addresses of functions that the recorder stands in front of.

use core::ffi::{CStr, c_char};
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::functions;
use super::loaded::{self, LinkMap, Members, Object, address_in};

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;

const R_X86_64_64: u32 = 1;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_JUMP_SLOT: u32 = 7;

const PAGE_BYTES: usize = 4096;

#[repr(C)]
struct Relocation {
    offset: usize,
    kind: u32,
    symbol: u32,
    addend: i64,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    /// 0: the object does not define it.
    section: u16,
    value: u64,
    size: u64,
}

/// A place for the address of a function, see [`functions::number`].
pub enum Place<'l> {
    /// Function, the address that is there, and where.
    Bound(usize, usize, Slot<'l>),
    /// Bound at the first call, which is yet to come.
    Unbound(usize, Slot<'l>),
}

pub struct Slot<'l> {
    place: &'l AtomicUsize,
    /// Pages of it that the loader has made read-only.
    protected: bool,
}

impl Place<'_> {
    pub fn function(&self) -> usize {
        match self {
            Self::Bound(function, ..) | Self::Unbound(function, _) => *function,
        }
    }

    /// Puts another address there. Nothing where the page cannot be made writable.
    pub fn write(&self, address: usize) {
        let (Self::Bound(_, _, slot) | Self::Unbound(_, slot)) = self;
        let page = core::ptr::from_ref(slot.place) as usize & !(PAGE_BYTES - 1);
        let protect = |access| {
            // SAFETY: a page of the object, and one that holds nothing but what the loader has written and protected; it is
            // read-only again before the list is released, so that nobody else is here or counts on it. Threads that read it see
            // the address before or after.
            unsafe { libc::mprotect(page as *mut _, PAGE_BYTES, access) == 0 }
        };
        if slot.protected && !protect(libc::PROT_READ | libc::PROT_WRITE) {
            return;
        }
        slot.place.store(address, Ordering::Release);
        if slot.protected {
            protect(libc::PROT_READ);
        }
    }
}

/// Visits the places of an object and of what it depends on, but those that have the recorder's function already. The object must be
/// open, so that all of these are loaded and stay.
pub fn each_place(map: *const LinkMap, mut visit: impl FnMut(&Place<'_>)) {
    let mut members = None;
    loaded::each(|number, object| {
        // SAFETY: the list is held, and the object on it.
        let members = members.get_or_insert_with(|| unsafe { Members::of(map) });
        if members.contains(number) {
            places_of(object, &mut visit);
        }
    });
}

fn places_of(object: &Object<'_>, visit: &mut impl FnMut(&Place<'_>)) {
    let address = |tag| {
        let value = object.dynamic(tag)?;
        Some(address_in(object.bias, value))
    };
    let (Some(symbols), Some(strings)) = (address(DT_SYMTAB), address(DT_STRTAB)) else {
        return;
    };
    let own = object.addresses();
    let protected = protected(object);
    for (table, bytes) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
        let (Some(table), Some(bytes)) = (address(table), object.dynamic(bytes)) else {
            continue;
        };
        let count = bytes / size_of::<Relocation>();
        // SAFETY: the table of a loaded object, as long as it says.
        let table = unsafe { core::slice::from_raw_parts(table as *const Relocation, count) };
        for relocation in table {
            let is_address = match relocation.kind {
                R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => true,
                R_X86_64_64 => relocation.addend == 0,
                _ => false,
            };
            if !is_address || relocation.symbol == 0 {
                continue;
            }
            // SAFETY: relocations of a loaded object name symbols of its table, and those strings of its table.
            let (symbol, name) = unsafe {
                let symbol = &*(symbols as *const Symbol).add(relocation.symbol as usize);
                let name = (strings + symbol.name as usize) as *const c_char;
                (symbol, CStr::from_ptr(name))
            };
            let Some(function) = functions::number(name) else {
                continue;
            };
            let place = object.bias.wrapping_add(relocation.offset);
            let in_reach = object
                .segment_of(place)
                .is_some_and(|segment| segment.p_flags & libc::PF_W != 0);
            if !in_reach || !place.is_multiple_of(align_of::<usize>()) {
                continue;
            }
            let slot = Slot {
                // SAFETY: inside a writable segment of a loaded object and aligned; the object stays while the list is held.
                place: unsafe { AtomicUsize::from_ptr(place as *mut usize) },
                protected: protected.contains(&place),
            };
            let there = slot.place.load(Ordering::Relaxed);
            if there == functions::own(function) {
                continue;
            }
            // Before the first call the place points into the object's own table of calls.
            let unbound = relocation.kind == R_X86_64_JUMP_SLOT
                && symbol.section == 0
                && own.contains(&there);
            visit(&match unbound {
                true => Place::Unbound(function, slot),
                false => Place::Bound(function, there, slot),
            });
        }
    }
}

/// What the loader makes read-only after it has written there: whole pages.
fn protected(object: &Object<'_>) -> Range<usize> {
    let Some(header) = object.find(libc::PT_GNU_RELRO) else {
        return 0..0;
    };
    let range = object.range_of(header);
    range.start & !(PAGE_BYTES - 1)..range.end & !(PAGE_BYTES - 1)
}
