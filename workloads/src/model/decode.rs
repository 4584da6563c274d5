//! Reading TOML with errors that name the line, the key, what was found and what was expected.
//!
//! A [`Table`] hands out its keys one by one; [`Table::finish`] refuses those that nobody asked for, with the nearest
//! known key. Each fault carries the place of the very value it speaks of.

use crate::nearest::nearest;
use std::fmt::Display;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Keys whose tables say of which kind they are.
const KINDS: &[&str] = &["size", "lifetime", "hand-over", "allocations", "ranks"];

/// Keys that come as often as there are tables of theirs.
const HEADS: &[&str] = &["role", "group", "phase", "change"];

/// Something that a model file may not say.
#[derive(Debug)]
pub struct Fault {
    /// Where, bytes from the start of the file.
    pub at: usize,
    /// What was found and what was expected.
    pub reason: String,
}

/// What reading gives.
pub type Read<T> = Result<T, Fault>;

/// A table being read.
pub struct Table<'d> {
    entries: &'d DeTable<'d>,
    at: usize,
    /// What it describes, for messages: "role 'server'".
    what: String,
    known: Vec<&'static str>,
}

impl<'d> Table<'d> {
    /// Begins to read a table that starts at byte `at`.
    pub fn new(entries: &'d DeTable<'d>, at: usize, what: impl Into<String>) -> Self {
        Self {
            entries,
            at,
            what: what.into(),
            known: Vec::new(),
        }
    }

    /// Says what the table describes, once its name is known.
    pub fn describe(&mut self, what: String) {
        self.what = what;
    }

    /// What the table describes.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// A fault of the table as a whole.
    pub fn fault(&self, reason: impl Display) -> Fault {
        Fault {
            at: self.at,
            reason: format!("{}: {reason}", self.what),
        }
    }

    /// The value of a key, if it is there.
    pub fn get(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
        let value = self.entries.get(key)?;
        Some(Value {
            value: Some(value.get_ref()),
            at: value.span().start,
            key,
            what: self.what.clone(),
        })
    }

    /// The value of a key that must be there: where it is not, the fault is that of whoever reads the value, who knows what is expected.
    ///
    /// # Errors
    /// It is misspelled: a key stands there that is one letter off.
    pub fn need(&mut self, key: &'static str) -> Read<Value<'d>> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let misspelled = self.entries.iter().find(|(name, _)| {
            let name = name.get_ref().as_ref();
            !self.known.contains(&name) && strsim::osa_distance(name, key) == 1
        });
        match misspelled {
            Some((name, value)) => {
                Err(self.unknown(name, value, &format!("did you mean `{key}`?")))
            }
            None => Ok(Value {
                value: None,
                at: self.at,
                key,
                what: self.what.clone(),
            }),
        }
    }

    /// A whole number, or `default` where the key is absent.
    pub fn whole(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Read<u64> {
        self.get(key)
            .map_or(Ok(default), |value| value.whole(range))
    }

    /// A number within a range, or `default` where the key is absent.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Read<f64> {
        self.get(key)
            .map_or(Ok(default), |value| value.number(range))
    }

    /// A share from 0 to 1, or `default`.
    pub fn share(&mut self, key: &'static str, default: f64) -> Read<f64> {
        self.get(key)
            .map_or(Ok(default), |value| value.number(0.0..=1.0))
    }

    /// True or false, or `default`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Read<bool> {
        self.get(key).map_or(Ok(default), |value| value.flag())
    }

    /// Refuses keys that were never asked for.
    pub fn finish(self) -> Read<()> {
        self.refuse_unknown()
    }

    /// As [`Table::finish`], before the fault of something that is missing: it may be there under a mistyped name.
    pub fn refuse_unknown(&self) -> Read<()> {
        for (key, value) in self.entries.iter() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("expected one of {}", known.join(", "))
                }
            };
            return Err(self.unknown(key, value, &hint));
        }
        Ok(())
    }

    fn unknown(
        &self,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        hint: &str,
    ) -> Fault {
        // Keys of implicit tables have no place of their own.
        let at = if key.span().is_empty() {
            value.span().start
        } else {
            key.span().start
        };
        let name = key.get_ref();
        Fault {
            at,
            reason: format!("{}: unknown key `{name}`, {hint}", self.what),
        }
    }
}

/// A value being read.
pub struct Value<'d> {
    /// `None`: it is missing.
    value: Option<&'d DeValue<'d>>,
    /// Where it begins; that of its table where it is missing.
    at: usize,
    key: &'static str,
    what: String,
}

impl<'d> Value<'d> {
    /// A fault of this value: "role 'a': `live` is 0, expected …".
    pub fn expected(&self, expected: impl Display) -> Fault {
        let (what, key, shown) = (&self.what, self.key, self.shown());
        self.elsewhere(format!("{what}: `{key}` is {shown}, expected {expected}"))
    }

    /// This value, which must be there.
    pub fn present(self, expected: impl Display) -> Read<Self> {
        match self.value {
            Some(_) => Ok(self),
            None => Err(self.expected(expected)),
        }
    }

    /// A fault of something else that becomes visible here.
    pub fn elsewhere(&self, reason: String) -> Fault {
        Fault {
            at: self.at,
            reason,
        }
    }

    /// A fault of this value in other words.
    pub fn fault(&self, reason: impl Display) -> Fault {
        Fault {
            at: self.at,
            reason: format!("{}: {reason}", self.what),
        }
    }

    fn shown(&self) -> String {
        let Some(value) = self.value else {
            return "missing".to_owned();
        };
        match value {
            DeValue::String(text) if text.len() <= 60 => format!("\"{}\"", text.escape_debug()),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
            DeValue::Array(items) => format!("a list of {}", items.len()),
            other => format!("a {}", other.type_str()),
        }
    }

    /// A whole number within a range.
    pub fn whole(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(DeValue::Integer(number)) = self.value else {
            return Err(self.expected(expected));
        };
        // The parser has taken out the underscores.
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| self.expected(expected))
    }

    /// A number within a range.
    pub fn number(&self, range: RangeInclusive<f64>) -> Read<f64> {
        let text = match self.value {
            Some(DeValue::Integer(number)) if number.radix() == 10 => number.as_str(),
            Some(DeValue::Float(number)) => number.as_str(),
            _ => "",
        };
        text.parse()
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                self.expected(format_args!(
                    "a number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// True or false.
    pub fn flag(&self) -> Read<bool> {
        self.value
            .and_then(DeValue::as_bool)
            .ok_or_else(|| self.expected("true or false"))
    }

    /// Text.
    pub fn text(&self) -> Read<&'d str> {
        self.value
            .and_then(DeValue::as_str)
            .ok_or_else(|| self.expected("a text in quotes"))
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Read<T> {
        let typed = self.value.and_then(DeValue::as_str).unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == typed) {
            return Ok(*value);
        }
        let known: Vec<_> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        Err(self.expected(format_args!("one of {}", known.join(", "))))
    }

    /// A table; `what` describes it in messages.
    pub fn table(&self, what: impl Into<String>) -> Read<Table<'d>> {
        match self.value.and_then(DeValue::as_table) {
            Some(entries) => Ok(Table::new(entries, self.at, what)),
            None if KINDS.contains(&self.key) => {
                Err(self.expected("a table that begins with its kind, { kind = \"…\", … }"))
            }
            None => Err(self.expected("a table")),
        }
    }

    /// The elements of an array.
    pub fn list(&self) -> Read<Vec<Value<'d>>> {
        let Some(array) = self.value.and_then(DeValue::as_array) else {
            // A head in single brackets is the usual slip.
            let table = matches!(self.value, Some(DeValue::Table(_))) && HEADS.contains(&self.key);
            return Err(match table {
                true => self.expected("a head in double square brackets for each, [[…]]"),
                false => self.expected("a list in square brackets"),
            });
        };
        Ok(array
            .iter()
            .map(|element: &Spanned<DeValue<'d>>| Value {
                value: Some(element.get_ref()),
                at: element.span().start,
                key: self.key,
                what: self.what.clone(),
            })
            .collect())
    }
}
