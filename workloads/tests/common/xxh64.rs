//! The checksum of chunks, written down a second time on purpose: as a reader of the format's document or an attacker has it.

/// xxHash, 64 bits (github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), seed 0.
pub fn xxh64(bytes: &[u8]) -> u64 {
    const P: [u64; 5] = [
        11_400_714_785_074_694_791,
        14_029_467_366_897_019_727,
        1_609_587_929_392_839_161,
        9_650_029_242_287_828_579,
        2_870_177_450_012_600_261,
    ];
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let round = |lane: u64, value: u64| {
        lane.wrapping_add(value.wrapping_mul(P[1]))
            .rotate_left(31)
            .wrapping_mul(P[0])
    };
    let mut at = 0;
    let mut hash = P[4];
    if bytes.len() >= 32 {
        let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, P[0].wrapping_neg()];
        while at + 32 <= bytes.len() {
            for lane in &mut lanes {
                *lane = round(*lane, word(at));
                at += 8;
            }
        }
        hash = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0u64, |sum, (lane, turn)| {
                sum.wrapping_add(lane.rotate_left(turn))
            });
        for lane in lanes {
            hash = (hash ^ round(0, lane))
                .wrapping_mul(P[0])
                .wrapping_add(P[3]);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while at + 8 <= bytes.len() {
        hash = (hash ^ round(0, word(at)))
            .rotate_left(27)
            .wrapping_mul(P[0])
            .wrapping_add(P[3]);
        at += 8;
    }
    if at + 4 <= bytes.len() {
        let four = u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
        hash = (hash ^ four.wrapping_mul(P[0]))
            .rotate_left(23)
            .wrapping_mul(P[1])
            .wrapping_add(P[2]);
        at += 4;
    }
    for &byte in &bytes[at..] {
        hash = (hash ^ u64::from(byte).wrapping_mul(P[4]))
            .rotate_left(11)
            .wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P[2]);
    hash ^ (hash >> 32)
}
