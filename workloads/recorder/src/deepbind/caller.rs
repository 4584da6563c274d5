//! A place in the caller's object that an opening can return to.

use super::loaded;

/// The instruction that takes the next address from the stack and goes there.
const RET: u8 = 0xc3;

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

fn ret_in(code: &[u8], start: usize) -> Option<usize> {
    code.iter()
        .position(|byte| *byte == RET)
        .map(|at| start + at)
}
