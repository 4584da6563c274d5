//! A place in the caller's object that an opening can return to.

use super::loaded;

/// The instruction that takes the next address from the stack and goes there.
const RET: u8 = 0xc3;
/// How many are asked whether a walk of the stack would pass them.
#[cfg(feature = "stacks")]
const MOST_ASKED: usize = 4096;

/// The address of a `ret` in the code that `caller` lies in; of the program's where no object has it, as the loader takes the
/// program for the caller then.
pub fn ret_near(caller: usize) -> Option<usize> {
    let (mut of_caller, mut of_program) = (None, None);
    loaded::each(|number, object| {
        let code = match object.segment_of(caller) {
            Some(segment) => segment,
            None if number == 0 => {
                let is_code = |header: &&libc::Elf64_Phdr| {
                    header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0
                };
                match object.headers.iter().find(is_code) {
                    Some(segment) => segment,
                    None => return,
                }
            }
            None => return,
        };
        if code.p_flags & libc::PF_R == 0 {
            return;
        }
        let range = object.range_of(code);
        // SAFETY: a readable segment of a loaded object, which the caller runs in or the program consists of: it stays.
        let bytes = unsafe {
            core::slice::from_raw_parts(range.start as *const u8, range.end - range.start)
        };
        let after = match range.contains(&caller) {
            true => caller - range.start,
            false => 0,
        };
        let found =
            ret_in(&bytes[after..], range.start + after).or_else(|| ret_in(bytes, range.start));
        match range.contains(&caller) {
            true => of_caller = found,
            false => of_program = found,
        }
    });
    of_caller.or(of_program)
}

#[cfg(not(feature = "stacks"))]
fn ret_in(code: &[u8], start: usize) -> Option<usize> {
    code.iter()
        .position(|byte| *byte == RET)
        .map(|at| start + at)
}

/// The first that a walk passes without being led astray: nothing is on the stack there but the address to return to. Else the first.
#[cfg(feature = "stacks")]
fn ret_in(code: &[u8], start: usize) -> Option<usize> {
    let mut all = (code.iter().enumerate())
        .filter(|(_, byte)| **byte == RET)
        .map(|(at, _)| start + at);
    let first = all.next()?;
    core::iter::once(first)
        .chain(all.take(MOST_ASKED))
        .find(|ret| crate::stacks::is_bare_at(ret - 1))
        .or(Some(first))
}
