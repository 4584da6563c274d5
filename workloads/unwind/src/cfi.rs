//! Looking up one address in `.eh_frame` and running its little program up to it.

use crate::Memory;
use crate::reader::{OMIT, Reader};
use crate::row::Row;

const RBP: u64 = 6;
const RSP: u64 = 7;
const RETURN_ADDRESS: u64 = 16;
/// States that a program may remember at once; compilers use one.
const REMEMBERED: usize = 8;
/// Longest table or program that is believed, bytes: against tables that are none.
const LONGEST: u64 = 1 << 30;

/// How to step out of the frame of code at `pc`, by the module's tables. `header` is the address of
/// its `.eh_frame_hdr` (the segment PT_GNU_EH_FRAME). `None`: the tables know nothing of `pc` or
/// cannot be read; [`Row::END`]: there is no caller, or the rule is one that no compiler writes for
/// code that calls (then a walk ends here rather than goes astray).
pub fn row<M: Memory>(memory: &M, header: u64, pc: u64) -> Option<Row> {
    let fde = find(memory, header, pc)?;
    let entry = Entry::read(memory, fde, header)?;
    if pc.wrapping_sub(entry.begin) >= entry.length {
        return None;
    }
    if entry.cie.signal {
        return Some(Row::SIGNAL);
    }
    let mut state = State::default();
    run(
        entry.cie.program.clone(),
        &entry,
        u64::MAX,
        &mut state,
        None,
    )?;
    let initial = state;
    run(
        entry.program.clone(),
        &entry,
        pc,
        &mut state,
        Some(&initial),
    )?;
    Some(state.row().unwrap_or(Row::END))
}

/// The address of the entry (FDE) that may cover `pc`, by the sorted table.
fn find<M: Memory>(memory: &M, header: u64, pc: u64) -> Option<u64> {
    const DATAREL_SDATA4: u8 = 0x3b;
    let mut reader = Reader::new(memory, header, header.checked_add(LONGEST)?);
    let version = reader.u8()?;
    let (frame, count, table) = (reader.u8()?, reader.u8()?, reader.u8()?);
    if version != 1 || count == OMIT || table != DATAREL_SDATA4 {
        return None;
    }
    reader.skip_pointer(frame)?;
    let entries = reader.pointer(count, header)?.min(LONGEST / 8);
    let first = reader.at;
    let at = |index: u64| {
        let [a, b, c, d, e, f, g, h] = memory.bytes::<8>(first + index * 8)?;
        let offset = |bytes| i64::from(i32::from_le_bytes(bytes));
        Some((
            header.wrapping_add_signed(offset([a, b, c, d])),
            header.wrapping_add_signed(offset([e, f, g, h])),
        ))
    };
    let (mut low, mut high) = (0, entries);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(middle)?.0 <= pc {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    at(low.checked_sub(1)?).map(|(_, fde)| fde)
}

/// What entries share (CIE).
struct Common<'m, M> {
    code_align: u64,
    data_align: i64,
    encoding: u8,
    augmented: bool,
    signal: bool,
    program: Reader<'m, M>,
}

impl<'m, M: Memory> Common<'m, M> {
    fn read(memory: &'m M, at: u64) -> Option<Self> {
        let (mut reader, id) = open(memory, at)?;
        if id != 0 {
            return None;
        }
        let version = reader.u8()?;
        let mut letters = [0u8; 8];
        let mut count = 0;
        loop {
            match reader.u8()? {
                0 => break,
                letter => *letters.get_mut(count)? = letter,
            }
            count += 1;
        }
        let letters = letters.get(..count)?;
        let code_align = reader.uleb()?;
        let data_align = reader.sleb()?;
        let return_register = match version {
            1 => u64::from(reader.u8()?),
            3 => reader.uleb()?,
            _ => return None,
        };
        if return_register != RETURN_ADDRESS {
            return None;
        }
        let (mut encoding, mut signal) = (0, false);
        let augmented = letters.first() == Some(&b'z');
        if !augmented && !letters.is_empty() {
            return None;
        }
        if augmented {
            let length = reader.uleb()?;
            let mut data = reader.clone();
            reader.skip(length)?;
            for letter in letters.iter().skip(1) {
                match letter {
                    b'R' => encoding = data.u8()?,
                    b'L' => drop(data.u8()?),
                    b'P' => {
                        let encoding = data.u8()?;
                        data.skip_pointer(encoding)?;
                    }
                    b'S' => signal = true,
                    b'B' => {}
                    _ => return None,
                }
            }
        }
        Some(Self {
            code_align,
            data_align,
            encoding,
            augmented,
            signal,
            program: reader,
        })
    }
}

/// The part of the tables for one function (FDE).
struct Entry<'m, M> {
    cie: Common<'m, M>,
    begin: u64,
    length: u64,
    program: Reader<'m, M>,
}

impl<'m, M: Memory> Entry<'m, M> {
    fn read(memory: &'m M, at: u64, header: u64) -> Option<Self> {
        let (mut reader, id) = open(memory, at)?;
        if id == 0 {
            return None;
        }
        let cie = Common::read(memory, reader.at.checked_sub(4 + id)?)?;
        let begin = reader.pointer(cie.encoding, header)?;
        let length = reader.pointer(cie.encoding & 0x0f, 0)?;
        if cie.augmented {
            let bytes = reader.uleb()?;
            reader.skip(bytes)?;
        }
        Some(Self {
            cie,
            begin,
            length,
            program: reader,
        })
    }
}

/// Opens an entry of `.eh_frame`: a reader of what follows its id, up to its end, and the id.
fn open<M: Memory>(memory: &M, at: u64) -> Option<(Reader<'_, M>, u64)> {
    let mut reader = Reader::new(memory, at, at.checked_add(LONGEST)?);
    // 0 ends the section; 0xffffffff would be the 64-bit form, which nobody writes.
    let length = reader
        .u32()
        .filter(|length| (4..LONGEST as u32).contains(length))?;
    reader.end = reader.at + u64::from(length);
    let id = u64::from(reader.u32()?);
    Some((reader, id))
}

/// Where the CFA is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cfa {
    Register(u64, i64),
    /// The word at rbp + offset.
    AtRbp(i64),
    Unknown,
}

/// Where a register of the caller is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Same,
    /// At this offset from the CFA.
    At(i64),
    Undefined,
    Unknown,
}

#[derive(Clone, Copy)]
struct State {
    cfa: Cfa,
    rbp: Rule,
    back: Rule,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cfa: Cfa::Unknown,
            rbp: Rule::Same,
            back: Rule::At(-8),
        }
    }
}

impl State {
    fn set(&mut self, register: u64, rule: Rule) {
        match register {
            RBP => self.rbp = rule,
            RETURN_ADDRESS => self.back = rule,
            _ => {}
        }
    }

    fn restore(&mut self, register: u64, initial: &State) {
        match register {
            RBP => self.rbp = initial.rbp,
            RETURN_ADDRESS => self.back = initial.back,
            _ => {}
        }
    }

    fn row(&self) -> Option<Row> {
        let saved = match self.rbp {
            Rule::At(offset) => Some(offset),
            // Undefined: the caller does not use it either.
            Rule::Same | Rule::Undefined => None,
            Rule::Unknown => return None,
        };
        if self.back != Rule::At(-8) {
            return None;
        }
        match self.cfa {
            Cfa::Register(RSP, offset) => Row::from_rsp(offset, saved),
            Cfa::Register(RBP, offset) => Row::from_rbp(offset, saved),
            Cfa::AtRbp(offset) => Row::at_rbp(offset, saved),
            _ => None,
        }
    }
}

/// Runs a program until it speaks of code behind `pc`. `initial` is what the common part said.
fn run<M: Memory>(
    mut program: Reader<'_, M>,
    entry: &Entry<'_, M>,
    pc: u64,
    state: &mut State,
    initial: Option<&State>,
) -> Option<()> {
    let cie = &entry.cie;
    let mut location = entry.begin;
    let mut remembered = [State::default(); REMEMBERED];
    let mut depth = 0;
    while program.at < program.end {
        let instruction = program.u8()?;
        let low = u64::from(instruction & 0x3f);
        let factored = |offset: u64| (offset as i64).wrapping_mul(cie.data_align);
        let mut advance = None;
        match instruction & 0xc0 {
            0x40 => advance = Some(low),
            0x80 => {
                let offset = factored(program.uleb()?);
                state.set(low, Rule::At(offset));
            }
            0xc0 => state.restore(low, initial?),
            _ => match instruction {
                0x00 => {}
                0x01 => {
                    let to = program.pointer(cie.encoding, 0)?;
                    if to > pc {
                        return Some(());
                    }
                    location = to;
                }
                0x02 => advance = Some(u64::from(program.u8()?)),
                0x03 => advance = Some(u64::from(program.u16()?)),
                0x04 => advance = Some(u64::from(program.u32()?)),
                0x05 => {
                    let register = program.uleb()?;
                    let offset = factored(program.uleb()?);
                    state.set(register, Rule::At(offset));
                }
                0x06 => {
                    let register = program.uleb()?;
                    state.restore(register, initial?);
                }
                0x07 => {
                    let register = program.uleb()?;
                    state.set(register, Rule::Undefined);
                }
                0x08 => {
                    let register = program.uleb()?;
                    state.set(register, Rule::Same);
                }
                0x09 => {
                    let register = program.uleb()?;
                    program.uleb()?;
                    state.set(register, Rule::Unknown);
                }
                0x0a => {
                    *remembered.get_mut(depth)? = *state;
                    depth += 1;
                }
                0x0b => {
                    depth = depth.checked_sub(1)?;
                    *state = *remembered.get(depth)?;
                }
                0x0c => state.cfa = Cfa::Register(program.uleb()?, program.uleb()? as i64),
                0x0d => {
                    let register = program.uleb()?;
                    let Cfa::Register(_, offset) = state.cfa else {
                        return None;
                    };
                    state.cfa = Cfa::Register(register, offset);
                }
                0x0e => {
                    let offset = program.uleb()? as i64;
                    let Cfa::Register(register, _) = state.cfa else {
                        return None;
                    };
                    state.cfa = Cfa::Register(register, offset);
                }
                0x0f => {
                    let length = program.uleb()?;
                    state.cfa = expression(&mut program, length)?;
                }
                0x10 | 0x16 => {
                    let register = program.uleb()?;
                    let length = program.uleb()?;
                    program.skip(length)?;
                    state.set(register, Rule::Unknown);
                }
                0x11 => {
                    let register = program.uleb()?;
                    let offset = program.sleb()?.wrapping_mul(cie.data_align);
                    state.set(register, Rule::At(offset));
                }
                0x12 => {
                    let register = program.uleb()?;
                    let offset = program.sleb()?.wrapping_mul(cie.data_align);
                    state.cfa = Cfa::Register(register, offset);
                }
                0x13 => {
                    let offset = program.sleb()?.wrapping_mul(cie.data_align);
                    let Cfa::Register(register, _) = state.cfa else {
                        return None;
                    };
                    state.cfa = Cfa::Register(register, offset);
                }
                0x14 => {
                    let register = program.uleb()?;
                    program.uleb()?;
                    state.set(register, Rule::Unknown);
                }
                0x15 => {
                    let register = program.uleb()?;
                    program.sleb()?;
                    state.set(register, Rule::Unknown);
                }
                // DW_CFA_GNU_args_size says how to call a landing pad: nothing for a walk.
                0x2e => drop(program.uleb()?),
                0x2f => {
                    let register = program.uleb()?;
                    let offset = factored(program.uleb()?).wrapping_neg();
                    state.set(register, Rule::At(offset));
                }
                _ => return None,
            },
        }
        if let Some(units) = advance {
            let to = location.checked_add(units.checked_mul(cie.code_align)?)?;
            if to > pc {
                return Some(());
            }
            location = to;
        }
    }
    Some(())
}

/// An expression for the CFA. Compilers write one form for code that calls: the word at rbp +
/// offset, where a function aligns its stack. Others (PLT entries) are not understood.
fn expression<M: Memory>(program: &mut Reader<'_, M>, length: u64) -> Option<Cfa> {
    const BREG_RBP: u8 = 0x76;
    const DEREF: u8 = 0x06;
    let mut inside = program.clone();
    program.skip(length)?;
    inside.end = program.at;
    let mut read = || {
        let register = inside.u8()?;
        let offset = inside.sleb()?;
        let deref = inside.u8()?;
        (register == BREG_RBP && deref == DEREF && inside.at == inside.end)
            .then_some(Cfa::AtRbp(offset))
    };
    Some(read().unwrap_or(Cfa::Unknown))
}
