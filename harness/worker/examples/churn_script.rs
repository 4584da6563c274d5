//! Writes a script of one thread that churns blocks of 16 to 1024 bytes over 4,096 slots, for measuring the replay's own
//! cost: `cargo run -p heaplab-worker --example churn_script -- FILE [OPS]`.

use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{Op, OpKind};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("no file was named")?;
    let ops: u32 = arguments
        .next()
        .map_or(Ok(4_000_000), |text| text.parse())?;
    let mut script = ScriptWriter::create(Path::new(&path), 1)?;
    let (mut sizes, mut state) = (vec![0u64; 4096], 1u64);
    for _ in 0..ops {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let slot = (state >> 52) as u32;
        let size = &mut sizes[slot as usize];
        if *size == 0 {
            *size = 16 + (state >> 32) % 1009;
            script.push(0, Op::new(OpKind::Malloc, 0, 0, slot, *size, 0))?;
        } else {
            script.push(0, Op::new(OpKind::Free, 0, 0, slot, *size, 0))?;
            *size = 0;
        }
    }
    script.order(0, ops)?;
    script.finish(ScriptInfo {
        private_slots: 4096,
        ..ScriptInfo::default()
    })?;
    Ok(())
}
