//! The objects that the loader has loaded.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ops::Range;

/// The public beginning of glibc's `struct link_map`.
#[repr(C)]
pub struct LinkMap {
    pub bias: usize,
    pub name: *const c_char,
    dynamic: *const Dynamic,
    next: *const LinkMap,
    previous: *const LinkMap,
}

/// An entry of an object's dynamic section.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

const DT_NEEDED: i64 = 1;
const DT_STRTAB: i64 = 5;
const DT_SONAME: i64 = 14;

/// An object, while the loader's list is held.
pub struct Object<'l> {
    pub bias: usize,
    pub headers: &'l [libc::Elf64_Phdr],
}

impl Object<'_> {
    /// The loaded segment that holds an address.
    pub fn segment_of(&self, address: usize) -> Option<&libc::Elf64_Phdr> {
        let at = address.wrapping_sub(self.bias) as u64;
        self.segments()
            .find(|segment| at.wrapping_sub(segment.p_vaddr) < segment.p_memsz)
    }

    /// From the first segment to the last.
    pub fn addresses(&self) -> Range<usize> {
        let ends = self.segments().map(|segment| self.range_of(segment));
        ends.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end))
            .unwrap_or(0..0)
    }

    pub fn range_of(&self, segment: &libc::Elf64_Phdr) -> Range<usize> {
        let start = self.bias.wrapping_add(segment.p_vaddr as usize);
        start..start.saturating_add(segment.p_memsz as usize)
    }

    /// An entry of the dynamic section: a number, or an address, see [`address_in`].
    pub fn dynamic(&self, tag: i64) -> Option<usize> {
        let section = self.find(libc::PT_DYNAMIC)?;
        let first = self.bias.wrapping_add(section.p_vaddr as usize) as *const Dynamic;
        // SAFETY: the section of an object that is on the loader's list.
        unsafe { value_of(first, tag) }
    }

    pub fn find(&self, kind: u32) -> Option<&libc::Elf64_Phdr> {
        self.headers.iter().find(|header| header.p_type == kind)
    }

    fn segments(&self) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        (self.headers.iter()).filter(|header| header.p_type == libc::PT_LOAD)
    }
}

/// An address in a dynamic section. The loader has added the object's bias to it, but not in one that it may not write to.
pub fn address_in(bias: usize, value: usize) -> usize {
    match value < bias {
        true => bias + value,
        false => value,
    }
}

/// Visits all objects, in the order of the loader's list and with their number in it. The list is held meanwhile: nothing comes or goes, and nothing of
/// the loader may be called.
pub fn each<F: FnMut(usize, &Object<'_>)>(visit: F) {
    struct State<F>(usize, F);
    unsafe extern "C" fn one<F: FnMut(usize, &Object<'_>)>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        state: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a description of an object, with its headers, and on the state that `each` passed to it.
        let (info, State(index, visit)) = unsafe { (&*info, &mut *state.cast::<State<F>>()) };
        if !info.dlpi_phdr.is_null() {
            // SAFETY: as many headers as it says, in an object that stays while the list is held.
            let headers =
                unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            let bias = info.dlpi_addr as usize;
            visit(*index, &Object { bias, headers });
        }
        *index += 1;
        0
    }
    let mut state = State(0, visit);
    // SAFETY: the function has the type asked for, and gets the state that belongs to it.
    unsafe { libc::dl_iterate_phdr(Some(one::<F>), (&raw mut state).cast()) };
}

/// Some of the objects, by their number in the list; of a list longer than this none behind.
#[derive(Clone)]
pub struct Members([u64; 64]);

impl Members {
    /// The object and all that it depends on, by the loader's rule: the first in its list that has the name.
    ///
    /// # Safety
    /// The loader's list must be held, and the object be on it.
    pub unsafe fn of(object: *const LinkMap) -> Self {
        // SAFETY: maps on the loader's list point to each other and to their names and dynamic sections.
        unsafe {
            let mut first = object;
            while !(*first).previous.is_null() {
                first = (*first).previous;
            }
            let (mut members, mut seen) = (Members([0; 64]), Members([0; 64]));
            let position = |is_it: &dyn Fn(*const LinkMap) -> bool| list(first).position(is_it);
            if let Some(own) = position(&|map| map == object) {
                members.insert(own);
            }
            loop {
                let before = members.0;
                for (number, map) in list(first).enumerate() {
                    if !members.contains(number) || !seen.insert(number) {
                        continue;
                    }
                    for name in needed(map) {
                        if let Some(found) = position(&|other| is_named(other, name)) {
                            members.insert(found);
                        }
                    }
                }
                if members.0 == before {
                    return members;
                }
            }
        }
    }

    pub fn contains(&self, number: usize) -> bool {
        let word = self.0.get(number / 64);
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Whether it was not there before.
    fn insert(&mut self, number: usize) -> bool {
        let Some(word) = self.0.get_mut(number / 64) else {
            return false;
        };
        let before = *word;
        *word |= 1 << (number % 64);
        *word != before
    }
}

/// # Safety
/// The loader's list must be held, and `first` be null or on it.
unsafe fn list(first: *const LinkMap) -> impl Iterator<Item = *const LinkMap> {
    let on_list = |map: *const LinkMap| (!map.is_null()).then_some(map);
    // SAFETY: maps on the loader's list point to each other.
    core::iter::successors(on_list(first), move |&map| on_list(unsafe { (*map).next }))
}

/// The value of the first entry with this tag.
///
/// # Safety
/// Null or a dynamic section, which ends with an entry of tag 0.
unsafe fn value_of(first: *const Dynamic, tag: i64) -> Option<usize> {
    // SAFETY: the caller's promise is passed on.
    unsafe { entries(first) }
        .find(|entry| entry.tag == tag)
        .map(|entry| entry.value)
}

/// # Safety
/// As [`value_of`].
unsafe fn entries<'l>(first: *const Dynamic) -> impl Iterator<Item = &'l Dynamic> {
    let mut at = first;
    core::iter::from_fn(move || {
        // SAFETY: the section goes on until an entry of tag 0.
        let entry = unsafe { at.as_ref() }.filter(|entry| entry.tag != 0)?;
        at = at.wrapping_add(1);
        Some(entry)
    })
}

/// A string of an object.
///
/// # Safety
/// The object must be on the loader's list while that is held.
unsafe fn text<'l>(map: *const LinkMap, offset: usize) -> Option<&'l CStr> {
    // SAFETY: strings of a dynamic section end with a zero.
    unsafe {
        let strings = value_of((*map).dynamic, DT_STRTAB)?;
        let strings = address_in((*map).bias, strings);
        Some(CStr::from_ptr((strings + offset) as *const c_char))
    }
}

/// The names of what an object depends on.
///
/// # Safety
/// As [`text`].
unsafe fn needed<'l>(map: *const LinkMap) -> impl Iterator<Item = &'l CStr> {
    // SAFETY: as above.
    unsafe {
        entries((*map).dynamic)
            .filter(|entry| entry.tag == DT_NEEDED)
            .filter_map(move |entry| text(map, entry.value))
    }
}

/// Whether an object goes by this name: its path, the last part of that, or what it calls itself.
///
/// # Safety
/// As [`text`].
unsafe fn is_named(map: *const LinkMap, name: &CStr) -> bool {
    // SAFETY: as above; paths on the loader's list end with a zero.
    unsafe {
        if !(*map).name.is_null() {
            let path = CStr::from_ptr((*map).name).to_bytes();
            let last = path.rsplit(|byte| *byte == b'/').next();
            if path == name.to_bytes() || last == Some(name.to_bytes()) {
                return true;
            }
        }
        let own = value_of((*map).dynamic, DT_SONAME);
        own.and_then(|own| text(map, own)) == Some(name)
    }
}
