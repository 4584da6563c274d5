//! `profile.pb.gz`: the protocol buffer of pprof (github.com/google/pprof, proto/profile.proto), gzipped.

use super::schema::{Costs, Profile};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashMap;
use std::io::Write;

/// Sample types: name, unit, amount. The first four have the names of Go's heap profiles, so that tools know them;
/// "inuse" is what was in use at the peak.
type SampleType = (&'static str, &'static str, fn(&Costs) -> f64);

const TYPES: [SampleType; 8] = [
    ("alloc_objects", "count", |costs| costs.allocations.value),
    ("alloc_space", "bytes", |costs| costs.bytes.value),
    ("inuse_objects", "count", |costs| costs.peak_blocks.value),
    ("inuse_space", "bytes", |costs| costs.peak_bytes.value),
    ("leaked_objects", "count", |costs| costs.leaked_blocks.value),
    ("leaked_space", "bytes", |costs| costs.leaked_bytes.value),
    ("short_lived_objects", "count", |costs| {
        costs.short_lived_blocks.value
    }),
    ("short_lived_space", "bytes", |costs| {
        costs.short_lived_bytes.value
    }),
];

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn packed(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut inner = Message::default();
        values.for_each(|value| inner.varint(value));
        self.bytes(field, &inner.0);
    }
}

/// All strings, the empty one first.
struct Strings {
    texts: Vec<String>,
    index: HashMap<String, u64>,
}

impl Strings {
    fn of(&mut self, text: &str) -> u64 {
        if let Some(&index) = self.index.get(text) {
            return index;
        }
        let index = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.index.insert(text.to_owned(), index);
        index
    }
}

/// The file's bytes.
pub fn encode(profile: &Profile) -> std::io::Result<Vec<u8>> {
    let mut strings = Strings {
        texts: Vec::new(),
        index: HashMap::new(),
    };
    strings.of("");
    let mut out = Message::default();
    let value_type = |name: &str, unit: &str, strings: &mut Strings| {
        let mut message = Message::default();
        message.number(1, strings.of(name));
        message.number(2, strings.of(unit));
        message.0
    };
    for (name, unit, _) in TYPES {
        let message = value_type(name, unit, &mut strings);
        out.bytes(1, &message);
    }
    for stack in &profile.stacks {
        let mut sample = Message::default();
        sample.packed(
            1,
            stack.frames.iter().rev().map(|frame| u64::from(*frame) + 1),
        );
        sample.packed(
            2,
            TYPES
                .iter()
                .map(|(.., amount)| amount(&stack.costs).max(0.0).round() as u64),
        );
        out.bytes(2, &sample.0);
    }
    let mut functions: HashMap<(&str, &str), u64> = HashMap::new();
    for (index, frame) in profile.frames.iter().enumerate() {
        let next = functions.len() as u64 + 1;
        let function = *functions
            .entry((&frame.function, &frame.file))
            .or_insert(next);
        let mut line = Message::default();
        line.number(1, function);
        line.number(2, u64::from(frame.line));
        let mut location = Message::default();
        location.number(1, index as u64 + 1);
        location.bytes(4, &line.0);
        out.bytes(4, &location.0);
        if function == next {
            let mut message = Message::default();
            message.number(1, function);
            let name = strings.of(&frame.function);
            message.number(2, name);
            message.number(3, name);
            message.number(4, strings.of(&frame.file));
            out.bytes(5, &message.0);
        }
    }
    let period = value_type("space", "bytes", &mut strings);
    let default = strings.of("inuse_space");
    for text in &strings.texts {
        out.bytes(6, text.as_bytes());
    }
    out.number(10, profile.totals.duration_ns);
    out.bytes(11, &period);
    out.number(12, u64::from(profile.sampling.period_bytes.unwrap_or(1)));
    out.number(14, default);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&out.0)?;
    gzip.finish()
}
