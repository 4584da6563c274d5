//! `heaplab doctor`: what this machine can measure, what disturbs it, and what to install, in plain words.

use crate::cli::{DoctorArgs, ListFormat};
use crate::cost::Cost;
use crate::error::{Error, Outcome};
use crate::tools;
use crate::{cost, fingerprint, out};
use heaplab_reports::schema::Machine;
use heaplab_reports::text::wrapped;
use heaplab_reports::units;
use serde::Serialize;

/// How a finding is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Weight {
    /// Fine.
    Good,
    /// Works, but figures may be wider or mean something else.
    Care,
    /// A feature does not work here.
    Missing,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    topic: &'static str,
    weight: Weight,
    finding: String,
}

/// Prints the findings; the exit status is 0 whatever they are.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &DoctorArgs) -> Result<Outcome, Error> {
    let machine = fingerprint::read();
    let findings = examine(&machine);
    let cost = match args.cost {
        true => Some(cost::measure(fingerprint::usable_cpus())?),
        false => None,
    };
    match args.format {
        ListFormat::Json => out::print_json(
            &serde_json::json!({"machine": machine, "findings": findings, "cost": cost}),
        )?,
        ListFormat::Table => {
            let mut text = text(&machine, &findings);
            if let Some(cost) = &cost {
                text.push_str(&cost_text(cost));
            }
            out::print(&text)?;
        }
    }
    Ok(Outcome::Done)
}

fn cost_text(cost: &Cost) -> String {
    let figure = |ns: Option<f64>| match ns {
        Some(ns) => format!("{ns:.1} ns"),
        None => "not measured on one CPU".into(),
    };
    let mut text = String::from(
        "\nwhat the harness costs (null allocator, nothing touched, fastest of 7 runs)\n",
    );
    let mut line = |what: &str, ns: Option<f64>| {
        text.push_str(&format!("    {what:<40} {}\n", figure(ns)));
    };
    for local in &cost.local {
        match local.threads {
            1 => line("a call, one thread", Some(local.ns)),
            n => line(&format!("a call in each of {n} threads"), Some(local.ns)),
        }
    }
    line("handing a block over, beside its calls", cost.hand_over_ns);
    line("from block to block, all in all", cost.handed_wall_ns);
    line(
        "the same, each answered by the other",
        cost.answered_wall_ns,
    );
    line(
        "a cache line to the other CPU and back",
        cost.line_there_and_back_ns,
    );
    line("an empty pair of time stamps", Some(cost.timer_ns));
    if let Some(share) = cost.disturbed {
        text.push_str(&format!(
            "!   other programs and the host took {:.0} % of a CPU meanwhile: the figures are too high\n",
            100.0 * share
        ));
    }
    text
}

/// Where a finding begins, behind its sign and its topic.
const COLUMN: usize = 17;

fn text(machine: &Machine, findings: &[Finding]) -> String {
    let mut text = format!(
        "{}   {} CPUs   {}   Linux {}   {}\n\n",
        machine.cpu,
        machine.cpus,
        out::human_bytes(machine.memory_bytes),
        machine.kernel,
        machine.libc
    );
    for f in findings {
        let sign = match f.weight {
            Weight::Good => "ok",
            Weight::Care => "! ",
            Weight::Missing => "- ",
        };
        let room = out::width().saturating_sub(COLUMN);
        let lines = wrapped(&f.finding, room, room).join(&format!("\n{}", " ".repeat(COLUMN)));
        text.push_str(&format!("{sign}  {:<12} {lines}\n", f.topic));
    }
    let care = findings.iter().filter(|f| f.weight == Weight::Care).count();
    let missing = findings
        .iter()
        .filter(|f| f.weight == Weight::Missing)
        .count();
    text.push_str(&match (care, missing) {
        (0, 0) => "\nnothing stands in the way of good figures\n".to_string(),
        _ => format!(
            "\n{} to keep in mind, {} missing\n",
            units::counted(care as f64, "thing"),
            units::counted(missing as f64, "thing")
        ),
    });
    text
}

fn examine(machine: &Machine) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut add = |topic, weight, finding: String| {
        all.push(Finding {
            topic,
            weight,
            finding,
        })
    };
    let detail = |name: &str| machine.details.get(name).map(String::as_str);

    match fingerprint::usable_cpus() {
        1 => add(
            "cpus",
            Weight::Care,
            "one CPU: threads take turns, so figures with several threads say little".into(),
        ),
        n => add("cpus", Weight::Good, format!("{n} CPUs can be used")),
    }
    if let Some(quota) = detail("cpu_quota") {
        add(
            "cpus",
            Weight::Care,
            format!("this container may use only {quota}: runs are stopped when that is spent"),
        );
    }
    match fingerprint::load() {
        Some(load) if load > 0.5 => add(
            "load",
            Weight::Care,
            format!(
                "load is {load:.2}: other programs are running, times will scatter; paired blocks stay fair"
            ),
        ),
        Some(load) => add(
            "load",
            Weight::Good,
            format!("load is {load:.2}: the machine is quiet"),
        ),
        None => {}
    }
    if let Some(steal) = fingerprint::steal_share() {
        if steal > 0.01 {
            let text = format!(
                "the host took away {:.1} % of CPU time since boot: this machine is shared",
                steal * 100.0
            );
            add("steal", Weight::Care, text);
        } else {
            add(
                "steal",
                Weight::Good,
                format!(
                    "{:.2} % of CPU time was taken away by the host",
                    steal * 100.0
                ),
            );
        }
    }
    match detail("governor") {
        Some("performance") => add(
            "frequency",
            Weight::Good,
            "the governor keeps the CPU at full speed".into(),
        ),
        Some(other) => add(
            "frequency",
            Weight::Care,
            format!(
                "the governor is '{other}': the CPU changes speed; `cpupower frequency-set -g performance` stops it"
            ),
        ),
        None if detail("virtualised") == Some("true") => {
            add(
                "frequency",
                Weight::Care,
                "a virtual machine: the CPU's frequency can be neither seen nor set".into(),
            );
        }
        None => add(
            "frequency",
            Weight::Good,
            "no frequency control is visible".into(),
        ),
    }
    match detail("invariant_tsc") {
        Some("true") => add(
            "clock",
            Weight::Good,
            "the time stamp counter is steady: latency can be measured".into(),
        ),
        _ => add(
            "clock",
            Weight::Care,
            "the CPU does not promise a steady time stamp counter: latency figures may be off"
                .into(),
        ),
    }
    match machine.thp.as_str() {
        "always" => add(
            "huge pages",
            Weight::Care,
            "transparent huge pages are 'always': resident memory grows in steps of 2 MiB for every allocator".into(),
        ),
        word => add("huge pages", Weight::Good, format!("transparent huge pages: {word}")),
    }
    if detail("kdamond") == Some("true") {
        add(
            "reclaim",
            Weight::Care,
            "the kernel runs kdamond, which can take memory back in the middle of a run: peaks stand, idle figures may \
             shrink"
                .into(),
        );
    }
    if let Some(limit) = detail("memory_limit") {
        let bytes = limit.parse().unwrap_or(0);
        add(
            "memory",
            Weight::Care,
            format!("this container is limited to {}", out::human_bytes(bytes)),
        );
    }
    match std::fs::metadata("/dev/shm") {
        Ok(_) => add("recording", Weight::Good, "shared memory is there".into()),
        Err(_) => add(
            "recording",
            Weight::Care,
            "there is no /dev/shm; recording uses ordinary files instead".into(),
        ),
    }
    match detail("perf_event_paranoid").and_then(|p| p.parse::<i32>().ok()) {
        Some(p) if p > 2 => add(
            "counters",
            Weight::Care,
            format!(
                "perf_event_paranoid is {p}: no hardware counters; heaplab counts instructions with callgrind instead"
            ),
        ),
        Some(_) => {}
        None => add(
            "counters",
            Weight::Care,
            "this kernel has no perf events; callgrind counts instead".into(),
        ),
    }
    for tool in tools::ALL {
        match tool.find() {
            Some(path) => add(
                "tools",
                Weight::Good,
                format!("{} for {}: {}", tool.name, tool.purpose, path.display()),
            ),
            None => add(
                "tools",
                Weight::Missing,
                format!("for {}: {}", tool.purpose, tool.missing()),
            ),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbances_are_named_with_what_they_mean() {
        let mut machine = Machine {
            thp: "always".into(),
            ..Machine::default()
        };
        machine.details.insert("kdamond".into(), "true".into());
        machine
            .details
            .insert("governor".into(), "powersave".into());
        machine
            .details
            .insert("perf_event_paranoid".into(), "4".into());
        let text = text(&machine, &examine(&machine));
        for word in [
            "kdamond",
            "powersave",
            "2 MiB",
            "callgrind",
            "steady time stamp",
        ] {
            assert!(text.contains(word), "{word} is missing in:\n{text}");
        }
    }
}
