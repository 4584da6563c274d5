//! Events of one thread as the drainer gathers them: packed by so few instructions that a program on the same core hardly
//! notices, and small enough that the compressor behind has little to read.
//!
//! Two bytes a event say what it is and how many bytes its numbers take; each number is stored by one store of eight bytes,
//! of which the next one overwrites what is not used. Body of a chunk: bytes of times, sizes and addresses (u32 each), the heads
//! (two bytes an event), then these three columns, then the alignments. First byte of a head: kind, bits 5 to 7 length of the
//! size. Second: bits 0 to 2 length of the address's distance, 3: it is below the previous one, 4: it has an alignment, 5 to 7
//! length of the time's step. A length of 7 stands for 8 bytes. Numbers as in the older form: time as the step from the
//! event before, address as the distance, rotated right by 4 bits.

use super::raw::{RawEvent, RawKind, RawMeta};

/// Bytes of a number whose length is written as the index.
const WIDTH: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 8];
const DOWN: u8 = 1 << 3;
const ALIGNED: u8 = 1 << 4;

/// Numbers one behind the other, and room behind them for one store.
#[derive(Clone, Debug, Default)]
struct Column {
    bytes: Vec<u8>,
    used: usize,
}

impl Column {
    /// Appends a number; how its length is written.
    #[inline(always)]
    fn put(&mut self, value: u64) -> u8 {
        if self.bytes.len() < self.used + 8 {
            self.grow();
        }
        let length = (71 - value.leading_zeros() as usize) / 8;
        let length = length.min(7);
        if let Some(place) = self.bytes.get_mut(self.used..self.used + 8) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        self.used += WIDTH[length];
        length as u8
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.bytes.resize((self.bytes.len() * 2).max(256), 0);
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// The other side of [`Column::put`].
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    #[inline(always)]
    fn take(&mut self, length: u8) -> Option<u64> {
        let width = WIDTH[usize::from(length & 7)];
        let (number, rest) = self.0.split_at_checked(width)?;
        let value = match self.0.first_chunk::<8>() {
            Some(word) if width == 8 => u64::from_le_bytes(*word),
            Some(word) => u64::from_le_bytes(*word) & ((1 << (8 * width)) - 1),
            None => number
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte)),
        };
        self.0 = rest;
        Some(value)
    }
}

/// Events of one thread in its order.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    heads: Vec<u8>,
    times: Column,
    sizes: Column,
    addresses: Column,
    alignments: Vec<u8>,
    first_ns: u64,
    last_ns: u64,
    address: u64,
}

impl Packed {
    /// Events.
    pub fn len(&self) -> usize {
        self.heads.len() / 2
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Appends an event. A time before the last one's is lifted to it.
    #[inline(always)]
    pub fn push(&mut self, event: &RawEvent) {
        if self.heads.is_empty() {
            self.first_ns = event.time_ns;
            self.last_ns = event.time_ns;
        }
        let size = if event.kind.has_size() { event.size } else { 0 };
        let time = self.times.put(event.time_ns.saturating_sub(self.last_ns));
        self.last_ns = self.last_ns.max(event.time_ns);
        let size = self.sizes.put(size);
        let distance = event.address.abs_diff(self.address).rotate_right(4);
        let down = u8::from(event.address < self.address) * DOWN;
        let address = self.addresses.put(distance);
        self.address = event.address;
        let mut second = address | down | time << 5;
        if event.align_log2 != 0 && event.kind.has_alignment() {
            second |= ALIGNED;
            self.alignments.push(event.align_log2);
        }
        self.heads
            .extend_from_slice(&[event.kind as u8 | size << 5, second]);
    }

    /// Begins anew; room is kept.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.alignments.clear();
        for column in [&mut self.times, &mut self.sizes, &mut self.addresses] {
            column.used = 0;
        }
        self.address = 0;
    }

    /// Gives room back that is more than what so many events need usually.
    pub fn shrink_to(&mut self, events: usize) {
        self.heads.shrink_to(events * 2);
        for column in [&mut self.times, &mut self.sizes, &mut self.addresses] {
            let keep = (events * 4).max(column.used);
            if column.bytes.len() > keep {
                column.bytes.truncate(keep);
                column.bytes.shrink_to_fit();
            }
        }
    }

    /// What a chunk says of these events.
    pub(super) fn meta(&self, thread: u32) -> RawMeta {
        RawMeta {
            thread,
            events: self.len() as u32,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
        }
    }

    /// Appends the body of a chunk.
    pub(super) fn write(&self, body: &mut Vec<u8>) {
        let columns = [&self.times, &self.sizes, &self.addresses];
        for column in columns {
            body.extend_from_slice(&(column.used as u32).to_le_bytes());
        }
        body.extend_from_slice(&self.heads);
        for column in columns {
            body.extend_from_slice(column.written());
        }
        body.extend_from_slice(&self.alignments);
    }

    /// The events, one by one.
    pub fn events(&self) -> Vec<RawEvent> {
        let mut body = Vec::new();
        self.write(&mut body);
        let mut events = Vec::new();
        // What this type itself wrote is whole.
        let _ = decode(self.meta(0), &body, &mut events);
        events
    }
}

/// The events of a chunk, appended to `out`; the error says what is wrong.
pub(super) fn decode(meta: RawMeta, body: &[u8], out: &mut Vec<RawEvent>) -> Result<(), String> {
    let short = || "the columns of a chunk are cut".to_string();
    let mut rest = body;
    let mut take = |length: usize| {
        let (column, after) = rest.split_at_checked(length).ok_or_else(short)?;
        rest = after;
        Ok::<_, String>(column)
    };
    let mut lengths = [0usize; 3];
    for length in &mut lengths {
        let word = take(4)?;
        *length = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize;
    }
    let heads = take(meta.events as usize * 2)?;
    let mut times = Numbers(take(lengths[0])?);
    let mut sizes = Numbers(take(lengths[1])?);
    let mut addresses = Numbers(take(lengths[2])?);
    let mut alignments = rest.iter();
    let (mut time_ns, mut address) = (meta.first_ns, 0u64);
    out.reserve(heads.len() / 2);
    for head in heads.chunks_exact(2) {
        let number = head[0] & 0x1f;
        let kind =
            RawKind::from_number(number).ok_or_else(|| format!("{number} is no kind of event"))?;
        let step = times.take(head[1] >> 5).ok_or_else(short)?;
        time_ns = time_ns.checked_add(step).ok_or("a time is out of range")?;
        let size = sizes.take(head[0] >> 5).ok_or_else(short)?;
        let step = addresses.take(head[1] & 7).ok_or_else(short)?;
        let step = step.rotate_left(4);
        address = if head[1] & DOWN != 0 {
            address.wrapping_sub(step)
        } else {
            address.wrapping_add(step)
        };
        let align_log2 = if head[1] & ALIGNED != 0 {
            *alignments.next().ok_or_else(short)?
        } else {
            0
        };
        if align_log2 >= 48 {
            return Err(format!("2^{align_log2} is no alignment"));
        }
        if size != 0 && !kind.has_size() || align_log2 != 0 && !kind.has_alignment() {
            return Err(format!("an event of kind {number} has what it cannot have"));
        }
        out.push(RawEvent {
            time_ns,
            address,
            size,
            kind,
            align_log2,
        });
    }
    let empty = times.0.is_empty() && sizes.0.is_empty() && addresses.0.is_empty();
    if time_ns != meta.last_ns || !empty || alignments.next().is_some() {
        return Err("the columns of a chunk do not agree with each other".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            steps in prop::collection::vec((0u8..20, any::<[u64; 3]>(), 0u32..64, 0u8..48), 0..80),
        ) {
            let mut packed = Packed::default();
            let (mut events, mut time_ns) = (Vec::new(), 0u64);
            for (kind, [time, address, size], shift, align_log2) in steps {
                let kind = RawKind::from_number(kind).unwrap();
                time_ns = time_ns.saturating_add(time >> shift.max(8));
                let event = RawEvent {
                    time_ns,
                    address: address >> shift,
                    size: if kind.has_size() { size >> shift } else { 0 },
                    kind,
                    align_log2: if kind.has_alignment() { align_log2 } else { 0 },
                };
                packed.push(&event);
                events.push(event);
            }
            prop_assert_eq!(packed.len(), events.len());
            prop_assert_eq!(packed.events(), events.clone());
            packed.clear();
            packed.shrink_to(0);
            events.iter().for_each(|event| packed.push(event));
            prop_assert_eq!(packed.events(), events);
        }

        #[test]
        fn any_bytes_end(events in 0u32..40, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let meta = RawMeta { thread: 0, events, first_ns: 0, last_ns: 0 };
            let mut out = Vec::new();
            if decode(meta, &body, &mut out).is_ok() {
                prop_assert_eq!(out.len(), events as usize);
            }
        }
    }
}
