//! What the recorder stands in front of, by name.

use core::ffi::CStr;
use core::ops::BitOr;

use super::loaded;
#[cfg(not(feature = "stacks"))]
use crate::hooks as allocating;
#[cfg(feature = "stacks")]
use crate::stacks::entry as allocating;
use crate::{hooks, mappings, operators, process, real};

struct Function {
    name: &'static CStr,
    own: *const (),
}

// SAFETY: addresses of functions.
unsafe impl Sync for Function {}

macro_rules! function {
    ($module:ident $name:ident) => {
        Function {
            name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => unreachable!(),
            },
            own: $module::$name as *const (),
        }
    };
}

macro_rules! functions {
    ($($module:ident: $($name:ident)*;)* @with_stacks $closing:ident: $closes:ident;) => {
        static FUNCTIONS: &[Function] = &[
            $($(function!($module $name),)*)*
            #[cfg(feature = "stacks")]
            function!($closing $closes),
        ];
    };
}

use super as opening;
#[cfg(feature = "stacks")]
use crate::stacks::modules as closing;

functions! {
    operators: _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
        _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t _ZdlPv _ZdaPv _ZdlPvRKSt9nothrow_t
        _ZdaPvRKSt9nothrow_t _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t _ZdlPvSt11align_val_tRKSt9nothrow_t
        _ZdaPvSt11align_val_tRKSt9nothrow_t _ZdlPvm _ZdaPvm _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t;
    allocating: malloc calloc realloc reallocarray aligned_alloc memalign posix_memalign valloc pvalloc;
    hooks: free free_sized free_aligned_sized;
    mappings: mmap mmap64 munmap mremap brk sbrk;
    process: execve execv execvp execvpe execl execlp execle execveat fexecve posix_spawn posix_spawnp;
    opening: dlopen dlmopen;
    @with_stacks closing: dlclose;
}

/// More than there are; a set of them is one word.
pub const COUNT: usize = u64::BITS as usize;
/// The C++ operators come first.
const OPERATORS: usize = operators::NAMES.len();

const _: () = assert!(FUNCTIONS.len() <= COUNT);

/// Some of the functions, by their numbers.
#[derive(Clone, Copy, Default)]
pub struct Set(u64);

impl Set {
    pub fn insert(&mut self, function: usize) {
        self.0 |= 1 << function;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..COUNT).filter(move |function| self.0 & 1 << function != 0)
    }
}

impl BitOr for Set {
    type Output = Set;

    fn bitor(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }
}

/// The number of the function with this name.
pub fn number(name: &CStr) -> Option<usize> {
    let bytes = name.to_bytes();
    let is_operator = bytes.starts_with(b"_Zn") || bytes.starts_with(b"_Zd");
    let range = match bytes.first()? {
        _ if is_operator => 0..OPERATORS,
        b'm' | b'c' | b'r' | b'a' | b'p' | b'v' | b'f' | b'b' | b's' | b'e' | b'd' => {
            OPERATORS..FUNCTIONS.len()
        }
        _ => return None,
    };
    range
        .into_iter()
        .find(|&function| self::name(function) == name)
}

pub fn name(function: usize) -> &'static CStr {
    FUNCTIONS[function].name
}

/// The recorder's own.
pub fn own(function: usize) -> usize {
    FUNCTIONS[function].own as usize
}

pub fn is_operator(function: usize) -> bool {
    function < OPERATORS
}

/// What the recorder calls for some of the functions; 0 for operators, of which there may be none.
pub fn next(wanted: Set) -> [usize; COUNT] {
    let mut next = [0; COUNT];
    for function in wanted.iter().filter(|&function| !is_operator(function)) {
        // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
        next[function] = unsafe { libc::dlsym(libc::RTLD_NEXT, name(function).as_ptr()) } as usize;
    }
    next
}

/// The addresses of the library whose `malloc` the recorder calls. Operators that are part of it would allocate past the
/// recorder; all others call `malloc` by its name.
pub struct Allocator(core::ops::Range<usize>);

impl Allocator {
    pub fn find() -> Self {
        let malloc = real::malloc().map_or(0, |malloc| malloc as usize);
        let mut range = 0..0;
        loaded::each(|_, object| {
            if object.segment_of(malloc).is_some() {
                range = object.addresses();
            }
        });
        Self(range)
    }

    pub fn contains(&self, address: usize) -> bool {
        self.0.contains(&address)
    }
}
