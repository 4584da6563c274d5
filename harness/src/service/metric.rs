//! Metrics of the user's own, read from what a load or a program prints.

use heaplab_reports::profile::Measured;
use heaplab_reports::schema::Better;
use heaplab_reports::units;
use regex_lite::Regex;

/// `--metric NAME=UNIT:lower|higher:REGEX`.
#[derive(Clone, Debug)]
pub struct OwnMetric {
    /// Name in tables and results.
    pub name: String,
    /// Unit, as the user writes it; `s`, `ns`, `bytes`, `count` and `ratio` are shown with prefixes.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    pattern: Regex,
}

impl OwnMetric {
    /// Reads the option's value.
    ///
    /// # Errors
    /// Words on what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write NAME=UNIT:lower|higher:REGEX, such as 'rps=1/s:higher:([0-9.]+) requests per second'"
                .to_owned()
        };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let mut parts = rest.splitn(3, ':');
        let (unit, direction, pattern) = (
            parts.next().ok_or_else(wrong)?,
            parts.next().ok_or_else(wrong)?,
            parts.next().ok_or_else(wrong)?,
        );
        let better = match direction {
            "lower" => Better::Lower,
            "higher" => Better::Higher,
            _ => return Err(wrong()),
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(letters) {
            return Err(format!(
                "'{name}' is no name for a metric: use letters, digits, '_', '.' and '-'"
            ));
        }
        if crate::metrics::ALL.iter().any(|known| known.name == name) {
            return Err(format!("'{name}' is measured already; choose another name"));
        }
        if unit.is_empty() || pattern.is_empty() {
            return Err(wrong());
        }
        let pattern = Regex::new(pattern)
            .map_err(|error| format!("'{pattern}' is no regular expression: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            pattern,
        })
    }

    /// What it was in one run.
    ///
    /// # Errors
    /// As [`OwnMetric::read`].
    pub fn measured(&self, output: &str) -> Result<Measured, String> {
        Ok(Measured {
            name: self.name.clone(),
            unit: self.unit.clone(),
            better: self.better,
            value: self.read(output)?,
        })
    }

    /// The value in `output`: of the last match its first group, or all of it where there is none. Thousands separators
    /// are left out.
    ///
    /// # Errors
    /// A sentence for the failed row.
    pub fn read(&self, output: &str) -> Result<f64, String> {
        let found = self.pattern.captures_iter(output).last();
        let text = found
            .as_ref()
            .and_then(|found| found.get(1).or_else(|| found.get(0)));
        let Some(text) = text.map(|text| text.as_str()) else {
            let said = crate::exec::tail(output);
            let said = match said.is_empty() {
                true => "there was no output".to_owned(),
                false => format!("the last line is: {said}"),
            };
            return Err(format!(
                "metric '{}' does not match the output ({}); {said}",
                self.name,
                self.pattern.as_str()
            ));
        };
        let plain = text.trim().replace([',', '_', '\''], "");
        plain
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
            .ok_or_else(|| {
                format!(
                    "metric '{}' matches '{text}', which is no number; put a group around the number",
                    self.name
                )
            })
    }
}

/// What a remark of a trace begins with that holds a metric of its recording, behind it as on the command line:
/// `rps=1/s:higher:151975.7`.
const NOTE: &str = "metric: ";

/// A figure as a remark of a trace.
pub fn note(measured: &Measured) -> String {
    let direction = match measured.better {
        Better::Lower => "lower",
        Better::Higher => "higher",
    };
    let Measured {
        name, unit, value, ..
    } = measured;
    format!("{NOTE}{name}={unit}:{direction}:{value}")
}

/// The figure of a remark; `None` for other remarks. The file may be anything.
pub fn of_note(note: &str) -> Option<Measured> {
    let (name, rest) = note.strip_prefix(NOTE)?.split_once('=')?;
    let (unit, rest) = rest.split_once(':')?;
    let (direction, value) = rest.split_once(':')?;
    Some(Measured {
        name: name.to_owned(),
        unit: unit.to_owned(),
        better: match direction {
            "lower" => Better::Lower,
            "higher" => Better::Higher,
            _ => return None,
        },
        value: value.parse().ok().filter(|value: &f64| value.is_finite())?,
    })
}

/// A figure for people: `rps: 152 k 1/s`.
pub fn told(measured: &Measured) -> String {
    let value = units::value(&measured.unit, measured.value);
    format!("{}: {value}", measured.name)
}
