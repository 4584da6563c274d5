//! What one address needs for the step to its caller, in one word.

/// How to find the caller's frame from inside one instruction's. Fits a cache's word.
///
/// ```text
/// bits 0..8    kind
/// bit  8       the caller's rbp is saved
/// bits 16..40  offset of the canonical frame address (CFA), signed
/// bits 40..64  offset of the saved rbp from the CFA, signed
/// ```
/// The return address is always the word below the CFA, as the call instruction leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub(crate) u64);

pub(crate) const NONE: u8 = 0;
pub(crate) const FROM_RSP: u8 = 1;
pub(crate) const FROM_RBP: u8 = 2;
pub(crate) const AT_RBP: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;
pub(crate) const END: u8 = 5;
pub(crate) const CHAIN: u8 = 6;
const SAVED: u64 = 1 << 8;
/// Offsets are below this in magnitude: a frame of 8 MiB would be the whole stack.
const LIMIT: i64 = 1 << 23;

impl Row {
    /// There is no caller: the outermost frame, or one whose rules are not understood.
    pub const END: Row = Row(END as u64);
    /// Code without tables: believe its frame pointer.
    pub const CHAIN: Row = Row(CHAIN as u64);
    /// The kernel's frame under a signal handler.
    pub const SIGNAL: Row = Row(SIGNAL as u64);

    /// CFA = `rsp + offset`.
    pub fn from_rsp(offset: i64, saved_rbp: Option<i64>) -> Option<Row> {
        Self::pack(FROM_RSP, offset, saved_rbp)
    }

    /// CFA = `rbp + offset`.
    pub fn from_rbp(offset: i64, saved_rbp: Option<i64>) -> Option<Row> {
        Self::pack(FROM_RBP, offset, saved_rbp)
    }

    /// CFA = the word at `rbp + offset` (functions that align their stack).
    pub fn at_rbp(offset: i64, saved_rbp: Option<i64>) -> Option<Row> {
        Self::pack(AT_RBP, offset, saved_rbp)
    }

    fn pack(kind: u8, cfa: i64, saved_rbp: Option<i64>) -> Option<Row> {
        let fits = |offset: i64| (-LIMIT..LIMIT).contains(&offset);
        let saved = saved_rbp.unwrap_or(0);
        if !fits(cfa) || !fits(saved) {
            return None;
        }
        let flag = if saved_rbp.is_some() { SAVED } else { 0 };
        let field = |offset: i64| (offset as u64) & 0xff_ffff;
        Some(Row(u64::from(kind)
            | flag
            | field(cfa) << 16
            | field(saved) << 40))
    }

    /// The word, for a cache. Never 0.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// What [`Row::to_word`] gave; 0 and nonsense give `None`.
    pub const fn from_word(word: u64) -> Option<Row> {
        if word as u8 == NONE || word as u8 > CHAIN {
            return None;
        }
        Some(Row(word))
    }

    /// What [`Row::to_word`] gave, unchecked: any other word ends a walk or leads it astray.
    #[inline(always)]
    pub const fn from_cache(word: u64) -> Row {
        Row(word)
    }

    #[inline(always)]
    pub(crate) const fn kind(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub(crate) const fn cfa_offset(self) -> i64 {
        (self.0 << 24) as i64 >> 40
    }

    /// Offset of the saved rbp from the CFA.
    #[inline(always)]
    pub(crate) const fn saved_rbp(self) -> Option<i64> {
        if self.0 & SAVED != 0 {
            Some(self.0 as i64 >> 40)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_come_back_with_their_sign() {
        for (cfa, saved) in [
            (16, Some(-16)),
            (-8, None),
            (8_388_607, Some(-8_388_608)),
            (-8_388_608, Some(8_388_607)),
        ] {
            let row = Row::from_rbp(cfa, saved).expect("fits");
            assert_eq!(
                (row.kind(), row.cfa_offset(), row.saved_rbp()),
                (FROM_RBP, cfa, saved)
            );
            assert_eq!(Row::from_word(row.to_word()), Some(row));
        }
        assert_eq!(Row::from_rsp(1 << 23, None), None);
        assert_eq!(Row::from_word(0), None);
    }
}
