//! Memory inside spans that are partly used: kernel pages on which every object is free go back to
//! the system although the span stays.
//!
//! One long-lived object in a hundred keeps a whole span; without this most of what a program freed
//! would stay resident. Free objects hold nothing that is needed (the bitmap says which they are),
//! so giving their pages back needs no record for correctness: an object that is handed out again
//! is a page fault. Only classes at rest are worth it, so this runs on request and from the helper.

use crate::central::{Central, Inner};
use crate::os::Os;
use crate::page_heap::PageHeap;
use crate::span::Span;
use crate::units::{OS_PAGE, round_up};

/// Spans that are purged before the class's lock is given to others for a moment.
const SPANS_AT_ONCE: usize = 16;

impl Central {
    /// Gives back whole kernel pages of free objects in all partly used spans that have not been
    /// looked at since an object last came or went. Returns the bytes given back.
    pub fn purge_holes<O: Os>(&self, heap: &PageHeap<O>) -> usize {
        let mut bytes = 0;
        loop {
            let mut inner = self.inner.lock();
            let (pages, more) = inner.purge_some(heap);
            bytes += pages * OS_PAGE;
            if !more {
                return bytes;
            }
        }
    }
}

impl Inner {
    /// Purges up to [`SPANS_AT_ONCE`] spans; kernel pages given back, and whether there may be more
    /// to do.
    fn purge_some<O: Os>(&mut self, heap: &PageHeap<O>) -> (usize, bool) {
        let table = heap.map.table();
        let mut pages = 0;
        let mut looked = 0;
        for list in self.lists {
            let mut id = list.head;
            while id != 0 {
                // SAFETY: numbers in the lists have records; we hold the class's lock.
                let span = unsafe { &mut *table.get(id) };
                id = span.next;
                if span.purged != 0 {
                    continue;
                }
                let (given, refused) = purge_span(heap, span);
                span.purged = (given as u16).max(1);
                // The next object that comes is noticed.
                let available = span.available();
                span.set_notice(available as u16, available);
                self.purged_pages += u32::from(span.purged);
                pages += given;
                looked += usize::from(given > 0);
                if refused || looked == SPANS_AT_ONCE {
                    return (pages, !refused);
                }
            }
        }
        (pages, false)
    }

    /// An object of the span comes or goes: what was given back is not known any more.
    #[inline]
    pub(crate) fn disturb(&mut self, span: &mut Span) {
        if span.purged != 0 {
            self.purged_pages -= u32::from(span.purged);
            span.purged = 0;
        }
    }
}

/// Gives back the kernel pages of `span` that hold nothing but free objects; their number, and
/// whether the system refused one.
fn purge_span<O: Os>(heap: &PageHeap<O>, span: &Span) -> (usize, bool) {
    let base = heap.map.address(span.start) as usize;
    let size = span.size as usize;
    // What was never handed out is resident only if the span's pages were used before.
    let touched = if span.needzero {
        span.objects
    } else {
        span.fresh
    } as usize;
    let is_free = |object: usize| {
        // SAFETY: the bitmap has a bit for every object of the span.
        unsafe { *span.bits.add(object / 64) >> (object % 64) & 1 != 0 }
    };
    let mut given = 0;
    let mut object = 0;
    while object < touched {
        if !is_free(object) {
            object += 1;
            continue;
        }
        let first = object;
        while object < touched && is_free(object) {
            object += 1;
        }
        let from = round_up(first * size, OS_PAGE);
        // Behind the last object there is nothing.
        let to = if object == span.objects as usize {
            span.bytes()
        } else {
            object * size / OS_PAGE * OS_PAGE
        };
        if from < to {
            if !heap.os.purge(base + from, to - from) {
                return (given, true);
            }
            given += (to - from) / OS_PAGE;
        }
    }
    (given, false)
}
