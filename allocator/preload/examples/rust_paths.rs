//! The program of `tests/fast_path`'s section on Rust: each path of the interface is a function of its own, called
//! a thousand times under callgrind. As Rust programs have it, layouts are known where the code is compiled; `dealloc any` is what a
//! container of any type calls. It prints titles and names in the order of the dumps.

use spanalloc::{DataAlloc, SpanAlloc, TinyAlloc};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: SpanAlloc = SpanAlloc;

const fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a layout"),
    }
}

/// Callgrind's client requests: dump and zero what was counted, and toggle collecting.
#[derive(Clone, Copy)]
enum Request {
    Dump = 0x4354_0000,
    Toggle = 0x4354_0002,
}

#[inline(always)]
fn ask(request: Request) {
    let arguments = [request as u64, 0, 0, 0, 0, 0];
    // SAFETY: valgrind's marked no-operation: outside of it nothing changes, inside it reads the arguments.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_u64 => _,
            options(nostack),
        );
    }
}

/// Warms up, then counts what `measured` executes between `before` and `after`.
#[inline(always)]
fn count(
    before: impl Fn() -> *mut u8,
    measured: impl Fn(*mut u8) -> *mut u8,
    after: impl Fn(*mut u8),
) {
    for _ in 0..100 {
        after(measured(before()));
    }
    for _ in 0..1000 {
        let block = before();
        ask(Request::Toggle);
        let block = measured(block);
        ask(Request::Toggle);
        after(block);
    }
    ask(Request::Dump);
}

/// Paths: the title, the function's name, and what allocates (`alloc`), frees (`dealloc`) or changes (`realloc`) the block of a layout.
macro_rules! paths {
    ($($title:literal, $name:ident: $kind:ident $allocator:ident, $layout:expr $(, $method:ident)?;)*) => {
        $(paths!(@entry $kind $name $allocator, $layout $(, $method)?);)*

        const NAMES: &[(&str, &str)] = &[$(($title, stringify!($name))),*];

        fn measure() {
            $(paths!(@measure $kind $name $allocator, $layout);)*
        }
    };
    (@entry alloc $name:ident $allocator:ident, $layout:expr, $method:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        fn $name() -> *mut u8 {
            // SAFETY: the layout has a size.
            unsafe { $allocator.$method($layout) }
        }
    };
    (@entry dealloc $name:ident $allocator:ident, $layout:expr) => {
        /// # Safety
        /// The block is live and has the layout.
        #[unsafe(no_mangle)]
        #[inline(never)]
        unsafe fn $name(block: *mut u8) {
            // SAFETY: the caller's duty.
            unsafe { $allocator.dealloc(block, $layout) }
        }
    };
    (@entry any $name:ident $allocator:ident, $layout:expr) => {
        /// # Safety
        /// The block is live and has the layout.
        #[unsafe(no_mangle)]
        #[inline(never)]
        unsafe fn $name(block: *mut u8, layout: Layout) {
            // SAFETY: the caller's duty.
            unsafe { $allocator.dealloc(block, layout) }
        }
    };
    (@entry realloc $name:ident $allocator:ident, $layout:expr) => {
        /// # Safety
        /// The block is live and has the layout.
        #[unsafe(no_mangle)]
        #[inline(never)]
        unsafe fn $name(block: *mut u8) -> *mut u8 {
            // SAFETY: the caller's duty.
            unsafe { $allocator.realloc(block, $layout, $layout.size() - 2) }
        }
    };
    (@measure alloc $name:ident $allocator:ident, $layout:expr) => {
        count(
            std::ptr::null_mut,
            |_| black_box(black_box($name as fn() -> *mut u8)()),
            // SAFETY: as it was allocated.
            |block| unsafe { $allocator.dealloc(block, $layout) },
        );
    };
    (@measure dealloc $name:ident $allocator:ident, $layout:expr) => {
        count(
            // SAFETY: the layout has a size.
            || black_box(unsafe { $allocator.alloc($layout) }),
            |block| {
                // SAFETY: as it was allocated.
                unsafe { black_box($name as unsafe fn(*mut u8))(block) };
                block
            },
            |_| (),
        );
    };
    (@measure any $name:ident $allocator:ident, $layout:expr) => {
        count(
            // SAFETY: the layout has a size.
            || black_box(unsafe { $allocator.alloc($layout) }),
            |block| {
                // SAFETY: as it was allocated.
                unsafe { black_box($name as unsafe fn(*mut u8, Layout))(block, black_box($layout)) };
                block
            },
            |_| (),
        );
    };
    (@measure realloc $name:ident $allocator:ident, $layout:expr) => {
        count(
            // SAFETY: the layout has a size.
            || black_box(unsafe { $allocator.alloc($layout) }),
            // SAFETY: as it was allocated, of which nearly all is kept.
            |block| black_box(unsafe { black_box($name as unsafe fn(*mut u8) -> *mut u8)(block) }),
            // SAFETY: it has the size that it was given last.
            |block| unsafe { $allocator.dealloc(block, layout($layout.size() - 2, $layout.align())) },
        );
    };
}

paths! {
    "SpanAlloc alloc 64", span_alloc_64: alloc SpanAlloc, layout(64, 8), alloc;
    "SpanAlloc alloc 2048", span_alloc_2048: alloc SpanAlloc, layout(2048, 8), alloc;
    "SpanAlloc alloc 64, 64", span_alloc_64_64: alloc SpanAlloc, layout(64, 64), alloc;
    "SpanAlloc alloc_zeroed 64", span_zeroed_64: alloc SpanAlloc, layout(64, 8), alloc_zeroed;
    "SpanAlloc realloc 64 to 62", span_realloc_64: realloc SpanAlloc, layout(64, 1);
    "SpanAlloc dealloc 64", span_dealloc_64: dealloc SpanAlloc, layout(64, 8);
    "SpanAlloc dealloc 2048", span_dealloc_2048: dealloc SpanAlloc, layout(2048, 8);
    "SpanAlloc dealloc 64, 64", span_dealloc_64_64: dealloc SpanAlloc, layout(64, 64);
    "SpanAlloc dealloc any", span_dealloc_any: any SpanAlloc, layout(64, 8);
    "TinyAlloc alloc 1", tiny_alloc_1: alloc TinyAlloc, layout(1, 1), alloc;
    "TinyAlloc alloc_zeroed 1", tiny_zeroed_1: alloc TinyAlloc, layout(1, 1), alloc_zeroed;
    "TinyAlloc realloc 8 to 6", tiny_realloc_8: realloc TinyAlloc, layout(8, 1);
    "TinyAlloc dealloc 1", tiny_dealloc_1: dealloc TinyAlloc, layout(1, 1);
    "TinyAlloc alloc 64", tiny_alloc_64: alloc TinyAlloc, layout(64, 8), alloc;
    "TinyAlloc dealloc 64", tiny_dealloc_64: dealloc TinyAlloc, layout(64, 8);
    "DataAlloc alloc 64", data_alloc_64: alloc DataAlloc, layout(64, 8), alloc;
    "DataAlloc alloc_zeroed 64", data_zeroed_64: alloc DataAlloc, layout(64, 8), alloc_zeroed;
    "DataAlloc realloc 64 to 62", data_realloc_64: realloc DataAlloc, layout(64, 1);
    "DataAlloc dealloc 64", data_dealloc_64: dealloc DataAlloc, layout(64, 8);
}

fn main() {
    for (title, name) in NAMES {
        println!("{title}\t{name}");
    }
    measure();
}
