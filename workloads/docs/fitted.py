#!/usr/bin/env python3
"""Writes the tables of FITTED.md from what `times.sh` left in a folder.

    workloads/docs/fitted.py OUT

Reads OUT/models (models and what fitting said), OUT/asked.txt (`fit_gap --table`), and the results in OUT/peaks, OUT/counts and
OUT/fitted-ROUND. Rows and tables that OUT says nothing of stay as they are, so that one trace may be fitted and measured anew.
Times are the least of all runs of all rounds: what other programs on the machine take only adds. Standard library only.
"""

import glob
import json
import math
import os
import re
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "FITTED.md")
TRACES = os.path.join(HERE, "..", "traces")
SUBJECTS = ["system", "jemalloc", "mimalloc", "spanalloc"]
GOALS = {"time": 0.10, "peak": 0.15}
# Columns of the large table: keys here, and their titles.
COLUMNS = {
    "trace": "trace", "subject": "subject", "time": "ns/op", "model time": "model", "time off": "off", "noise": "noise",
    "peak": "peak resident", "model peak": "model", "peak off": "off", "near": "within the goal", "faults": "faults",
}
ABOUT = ["trace", "lines", "kinds unforeseen, %", "with sizes, %"]

# What else is known of rows that miss a goal, beside the counts that differ most.
WHY_TIME = {
    "fd-tree": "and how its six threads meet: with system the trace took 22.3 ns on two processors and 43.8 on sixteen",
    "ripgrep-json": "and threads: with mimalloc the trace took 18.0 ns in one run, 15.7 and 8.3 in two on two processors",
}
WHY_PEAK = {
    "nginx-pages": "glibc maps the first block of 264 KiB by itself and keeps the next ones in the heap. In the trace it comes again to where it was; in the "
    "model some of the small blocks that are alive meanwhile lie there by then, and it takes another 264 KiB (with `-a system:mmap_threshold=131072`, "
    "which is not moved by frees, 628 and 632 KiB)",
    "ripgrep-json": "blocks that come and go of 64 to 160 KiB, of which the model has fewer sizes",
}
# Counts that decide about time, with what a difference of one percent costs beside others, about; and those shown at most.
DECIDE = {
    "kinds unforeseen": 1.0, "with sizes": 0.5, "a cache of 7 missed": 2.0, "a cache of 64 missed": 4.0, "realloc": 0.5, "calloc": 0.25,
    "aligned": 0.25, "free": 0.25, "frees of blocks older than 16,000 calls": 0.5, "places used again after more than 64 calls": 0.5,
}
SHOWN = 3


def human(value):
    return f"{value / 2**20:.2f} MiB" if value >= 2**20 else f"{value / 2**10:.0f} KiB"


def samples_of(pattern):
    """Values in results, by workload, allocator and metric."""
    values = {}
    for path in sorted(glob.glob(pattern)):
        with open(path) as file:
            for cell in json.load(file)["cells"]:
                for metric, about in cell.get("metrics", {}).items():
                    key = cell["workload"], cell["subject"], metric
                    values.setdefault(key, []).extend(sample["value"] for sample in about["samples"])
    return values


def place_of(pattern):
    """Where and when results were measured, in words."""
    paths = sorted(glob.glob(pattern))
    if not paths:
        return None
    with open(paths[0]) as file:
        first = json.load(file)
    machine = first["machine"]
    return f"on {machine['cpus']} processors ({machine['cpu']}, {machine['libc']}), {first['started'][:10]}"


def section(text, name):
    """What stands between the marks of a table, with what is before and after it."""
    before, rest = text.split(f"<!-- {name}: written by fitted.py -->\n", 1)
    inside, after = rest.split(f"<!-- end of {name} -->", 1)
    return before, inside, after


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def kept(text, name, key):
    """Rows of a table as they stand, by their first cells."""
    lines = [line for line in section(text, name)[1].splitlines() if line.startswith("| ")]
    return {tuple(cells_of(line)[:key]): cells_of(line) for line in lines[1:]}


def replaced(text, name, head, rows, below=""):
    before, _, after = section(text, name)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(row) + " |" for row in rows]
    table = "\n".join(lines) + "\n" + below
    return f"{before}<!-- {name}: written by fitted.py -->\n{table}<!-- end of {name} -->{after}"


def off(trace, model):
    return f"{100 * (model / trace - 1):+.0f} %"


def about(out, trace):
    """Lines of a model, and the calls that a predictor would not expect, of trace / model."""
    try:
        with open(f"{out}/models/{trace}-fitted.toml") as file:
            lines = sum(1 for _ in file)
        with open(f"{out}/models/{trace}.log") as file:
            said = re.search(r"from those before: ([\d.]+) % \(([\d.]+) % .*?of the trace ([\d.]+) % \(([\d.]+) %", file.read())
    except FileNotFoundError:
        return None
    kinds, sizes, of_trace, sizes_of_trace = said.groups()
    return [trace, str(lines), f"{of_trace} / {kinds}", f"{sizes_of_trace} / {sizes}"]


def measured(trace, subject, before, times, peaks):
    """A row of the large table by its columns; cells that nothing was measured for are those of the row before."""
    cells = dict(zip(COLUMNS, before or [trace, subject] + [""] * (len(COLUMNS) - 2)))
    names = trace, f"{trace}-fitted", f"{trace}-fitted-twin"
    if all((name, subject, "ns_per_op") in times for name in names):
        real, model, twin = (min(times[name, subject, "ns_per_op"]) for name in names)
        cells |= {"time": f"{real:.1f}", "model time": f"{model:.1f}", "time off": off(real, model)}
        cells["noise"] = f"{100 * abs(twin / model - 1):.0f} %"
        faults = [statistics.median(times[name, subject, "minor_faults"]) for name in names[:2]]
        cells["faults"] = " / ".join(f"{count:.0f}" for count in faults)
    if all((name, subject, "peak_resident_bytes") in peaks for name in names[:2]):
        real, model = (statistics.median(peaks[name, subject, "peak_resident_bytes"]) for name in names[:2])
        cells |= {"peak": human(real), "model peak": human(model), "peak off": off(real, model)}
    cells["near"] = " and ".join(what for what, goal in GOALS.items() if within(cells[f"{what} off"], goal))
    return cells


def within(percent, goal):
    return percent != "" and abs(float(percent.split()[0])) <= 100 * goal


def counted(counts, traces, before):
    """Instructions of the trace in each allocator, and how far the model is off; and how many are near."""
    rows, errors = [], []
    for trace in traces:
        cells = before.get((trace,), [trace] + [""] * len(SUBJECTS))
        for place, subject in enumerate(SUBJECTS, 1):
            both = [counts.get((name, subject, "instructions_in_subject")) for name in (trace, f"{trace}-fitted")]
            if all(both):
                real, model = (statistics.median(values) for values in both)
                cells[place] = f"{real / 1e6:.1f} M, {off(real, model)}"
            if cells[place]:
                errors.append(float(cells[place].split(",")[1].split()[0]) / 100)
        rows.append(cells)
    near = sum(abs(error) <= GOALS["time"] for error in errors)
    mean = math.exp(statistics.mean(abs(math.log1p(error)) for error in errors)) - 1 if errors else 0
    return rows, f"\n{near} of {len(errors)} are within 10 %; on average (logarithms) {100 * mean:.1f} % off.\n"


def differ(trace, figures):
    """The counts that differ most between a trace and its model, weighed by what they cost."""
    found = []
    for name, weight in DECIDE.items():
        both = figures.get((trace, name), "0")
        if "/" in both:
            real, model = (float(value) for value in both.split("/"))
            found.append((weight * abs(real - model), f"{name} {real:.1f} and {model:.1f} %"))
    found = [text for cost, text in sorted(found, reverse=True) if cost >= 0.5]
    return ", ".join(found[:SHOWN]) or "no count differs by much"


def summary(rows, figures, instructions, runs):
    """How many rows reach the goals, and the reasons of those that do not."""
    reached = lambda goal: sum(goal in row["near"] for row in rows)
    noises = [float(row["noise"].split()[0]) for row in rows if row["noise"]]
    itself = sum(noise <= 100 * GOALS["time"] for noise in noises)
    least = f" (each the least of {runs} runs)" if runs else ""
    text = [
        f"\nOf {len(rows)} rows {reached('peak')} are within 15 % in peak resident memory, {reached('time')} within 10 % in time{least}. "
        f"A model is within 10 % in time of itself under another name in {itself} of {len(noises)}, {statistics.median(noises or [0]):.0f} % off in the middle.\n\n"
    ]

    def about_time(trace, subjects):
        cells = [instructions[trace][1 + SUBJECTS.index(subject)] for subject in subjects]
        return f"instructions {', '.join(cell.split(',')[-1].strip() for cell in cells)}; {differ(trace, figures)}"

    def about_peak(trace, _):
        both = figures.get((trace, "the classes' own peaks, of the peak"), "? / ?")
        return f"the classes' own peaks add up to {both} of the peak"

    for goal, reason, why in (("peak", about_peak, WHY_PEAK), ("time", about_time, WHY_TIME)):
        missed = {}
        for row in rows:
            if goal not in row["near"]:
                missed.setdefault(row["trace"], []).append(row)
        text.append(f"**{goal.title()}**: what does not fit, and why (counts of the trace and of the model).\n\n")
        for trace, found in missed.items():
            subjects = ", ".join(f"{row['subject']} {row[f'{goal} off']}" for row in found)
            more = f"; {why[trace]}" if trace in why else ""
            text.append(f"- {trace} ({subjects}): {reason(trace, [row['subject'] for row in found])}{more}.\n")
        text.append("\n")
    return "".join(text)


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: fitted.py OUT, the folder that times.sh filled")
    out = sys.argv[1]
    traces = sorted(name[:-8] for name in os.listdir(TRACES) if name.endswith(".hltrace"))
    with open(TABLE) as file:
        text = file.read()
    before = kept(text, "models", 1)
    rows = [about(out, trace) or before.get((trace,)) for trace in traces]
    rows = [row for row in rows if row]
    text = replaced(text, "models", ABOUT, rows)
    figures = {(row[0], name): cell for row in rows for name, cell in zip(("kinds unforeseen", "with sizes"), row[2:])}
    if os.path.exists(f"{out}/asked.txt"):
        with open(f"{out}/asked.txt") as file:
            head, *asked = [cells_of(line) for line in file if line.startswith("| ")]
        before = kept(text, "asked", 1) | {(cells[0],): cells for cells in asked}
        text = replaced(text, "asked", head, [before[trace,] for trace in traces if (trace,) in before])
    head = cells_of(next(line for line in section(text, "asked")[1].splitlines() if line.startswith("| ")))
    figures |= {(trace, name): cell for (trace,), row in kept(text, "asked", 1).items() for name, cell in zip(head[1:], row[1:])}
    rows, below = counted(samples_of(f"{out}/counts/result.json"), traces, kept(text, "counts", 1))
    text = replaced(text, "counts", ["trace", *SUBJECTS], rows, below)
    instructions = {row[0]: row for row in rows}
    times, peaks = samples_of(f"{out}/fitted-*/*/result.json"), samples_of(f"{out}/peaks/result.json")
    place = place_of(f"{out}/fitted-*/*/result.json")
    if place:
        rounds = len(glob.glob(f"{out}/fitted-*"))
        before, _, after = section(text, "times")
        said = f"Times, their noise and faults were measured {place}, in {rounds} rounds with nothing else of ours running: of each the least counts.\n"
        text = f"{before}<!-- times: written by fitted.py -->\n{said}<!-- end of times -->{after}"
    runs = min((len(values) for (_, _, metric), values in times.items() if metric == "ns_per_op"), default=0)
    before = kept(text, "rows", 2)
    rows = [measured(trace, subject, before.get((trace, subject)), times, peaks) for trace in traces for subject in SUBJECTS]
    below = summary(rows, figures, instructions, runs)
    text = replaced(text, "rows", COLUMNS.values(), [row.values() for row in rows], below)
    with open(TABLE, "w") as file:
        file.write(text)


main()
