#!/usr/bin/env python3
"""How allocators rank on each classic, beside what the original programs say: writes the tables of RANKING.md.

    workloads/docs/ranking.py target/release/heaplab [BLOCKS [SCALE]]     # runs everything
    workloads/docs/ranking.py RESULT/result.json...                       # or takes results of the commands it prints

Results may be of some classics, of some allocators beside the system's, or of one measure: rows and ratios that they say nothing of stay
as they are, so that a machine need not be quiet for long.

Times are relative to the system's, each the least of its blocks: what other programs on the machine take only adds. The
classics whose originals write blocks of several pages are replayed with `--touch page`. Peaks are of lockstep replays.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

# The original programs, run as mimalloc-bench (commit ce5784f) builds them, with two threads, on a virtual machine of
# 2 CPUs (AMD EPYC), relative to glibc 2.36: jemalloc 5.3.1, mimalloc 2.4.1, mimalloc 3.4.3, gperftools 2.10. First time,
# two or three quiet runs each (differences under 10 % with one thread, 20 % with two, are ties); then, for programs of
# more than 10 MiB, peak resident memory.
ORIGINAL = {
    "tiny-churn": ((0.94, 0.85, 0.96, 0.90), None),
    "glibc-simple": ((0.90, 0.75, 0.67, 0.72), None),
    "glibc-thread": ((0.62, 0.62, 0.64, 0.88), None),
    "alloc-test": ((0.80, 0.73, 0.73, 0.72), (0.91, 1.13, 1.15, 1.16)),
    "mleak": ((1.15, 1.11, 0.93, 1.00), None),
    "malloc-large": ((6.38, 1.55, 0.56, 0.80), (0.89, 1.16, 1.31, 1.06)),
    "cache-scratch": ((0.85, 0.96, 0.85, 0.91), None),
    "cache-thrash": ((1.02, 1.01, 1.02, 1.01), None),
    "larson": ((0.78, 0.65, 0.75, 0.63), (1.14, 1.66, 1.38, 0.91)),
    "mstress": ((1.65, 0.85, 1.17, 0.94), (1.17, 1.89, 5.41, 1.78)),
    "rptest": ((0.35, 0.66, 0.36, 0.29), (0.63, 1.17, 1.05, 0.99)),
    "xmalloc": ((0.37, 0.29, 0.32, 1.31), (1.34, 1.60, 1.55, 0.90)),
}
PEERS = ["jemalloc", "mimalloc", "mimalloc-v3", "tcmalloc"]
# What the originals write whole, and has blocks of several pages.
WRITTEN = ["malloc-large", "mstress", "rptest"]
DECIDERS = ["bimodal", "checkerboard", "fragmenter", "ratchet", "robson", "sawtooth", "survivors"]
CLASSICS = sorted(ORIGINAL) + ["sh6bench", "sh8bench"] + DECIDERS
SUBJECTS = ["system", *PEERS, "spanalloc"]
BEGIN, END = "<!-- tables: written by ranking.py -->\n", "<!-- end of tables -->"


def results(arguments):
    """The cells of all results; runs what is needed if no results are given."""
    if all(argument.endswith(".json") for argument in arguments):
        return [cell for path in arguments for cell in json.loads(pathlib.Path(path).read_text())["cells"]]
    heaplab, blocks, scale = (arguments + ["6", "1"][len(arguments) - 1:])[:3]
    listed = json.loads(subprocess.run([heaplab, "list", "subjects", "--format", "json"], check=True, stdout=subprocess.PIPE).stdout)
    usable = [subject for subject in SUBJECTS if any(s["name"] == subject and s["available"] for s in listed)]
    shared = ["--no-report", "--seed", "1", "--scale", scale, "--subject", ",".join(usable)]
    runs = [
        ["--measure", "speed", "--blocks", blocks, *(name for name in CLASSICS if name not in WRITTEN)],
        ["--measure", "speed", "--touch", "page", "--blocks", blocks, *WRITTEN],
        ["--measure", "memory", "--blocks", "1", *CLASSICS],
    ]
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for index, run in enumerate(runs):
            command = [heaplab, "run", "--quiet", *shared, *run, "--out", f"{folder}/{index}"]
            print(" ".join(command), file=sys.stderr)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            cells += json.loads(pathlib.Path(f"{folder}/{index}/result.json").read_text())["cells"]
    return cells


def side(ratio):
    """Faster than glibc, like it, slower: ties within 15 %."""
    return -1 if ratio < 0.87 else 1 if ratio > 1.15 else 0


def agrees(ratio, original):
    """Whether a replay says of a peer what the original says: the same side of the system's, or within a quarter of it."""
    return side(ratio) == side(original) or max(ratio / original, original / ratio) <= 1.25


def beside(ratio, original):
    return f"{ratio:.2f}" + (f" ({original:.2f})" if original is not None else "")


def ratios_of(line, subjects):
    """The ratios in a line of a table, by subject."""
    cells = [cell.strip() for cell in line.split("|")][3:]
    return {subject: float(cell.split()[0]) for subject, cell in zip(subjects, cells) if cell}


def row(name, base, values, originals, order, before=""):
    """One line: the system's figure, ratios to it, the original's in parentheses, and where they stand on another side. Ratios of
    subjects without a value are those of the line before."""
    ratio = ratios_of(before, SUBJECTS[1:]) | {subject: value / values["system"] for subject, value in values.items()}
    said = dict(zip(PEERS, originals)) if originals else {}
    cells = [beside(ratio[s], said.get(s)) if s in ratio else "" for s in SUBJECTS[1:]]
    wrong = [s for s in said if s in ratio and not agrees(ratio[s], said[s])]
    verdict = "" if not said else "yes" if not wrong else "not " + ", ".join(wrong)
    ranked = [", ".join(sorted(ratio, key=ratio.get))] if order else []
    return "| " + " | ".join([name, base, *cells, *ranked, verdict]) + " |"


def kept_rows(text):
    """Rows of the three tables as they stand, by name."""
    tables = [{}]
    for line in text.splitlines():
        name = line.split("|")[1].strip() if line.startswith("| ") else ""
        if name in ("classic", "pattern"):
            tables.append({})
        elif name:
            tables[-1][name] = line
    return (tables[1:] + [{}, {}, {}])[:3]


def main():
    times, peaks, live = {}, {}, {}
    for cell in results(sys.argv[1:]):
        metrics = cell["metrics"]
        key = cell["workload"], cell["subject"]
        if "ns_per_op" in metrics:
            least = min(sample["value"] for sample in metrics["ns_per_op"]["samples"])
            times[key] = min(least, times.get(key, least))
        if "peak_resident_bytes" in metrics:
            peaks[key] = metrics["peak_resident_bytes"]["median"]
            live[cell["workload"]] = metrics["peak_live_bytes"]["median"]

    def of(table, name):
        return {subject: table[name, subject] for subject in SUBJECTS if (name, subject) in table}

    document = pathlib.Path(__file__).with_name("RANKING.md")
    text = document.read_text()
    before, rest = text.split(BEGIN, 1)
    tables, after = rest.split(END, 1)
    kept = kept_rows(tables)
    head = ["classic", "system", *SUBJECTS[1:]]
    lines = ["| " + " | ".join([*head, "fastest first", "agree"]) + " |", "|---" * (len(head) + 2) + "|"]
    for name in CLASSICS:
        values = of(times, name)
        if "system" in values:
            lines.append(row(name, f"{values['system']:.1f} ns", values, ORIGINAL.get(name, (None,))[0], True, kept[0].get(name, "")))
        elif name in kept[0]:
            lines.append(kept[0][name])
    lines += ["", "Peak resident memory, relative to the system's; in parentheses that of the original program:", ""]
    lines += ["| " + " | ".join([*head, "agree"]) + " |", "|---" * (len(head) + 1) + "|"]
    for name in CLASSICS:
        values, said = of(peaks, name), ORIGINAL.get(name, (None, None))[1]
        if said and "system" in values:
            lines.append(row(name, f"{values['system'] / 2**20:.1f} MiB", values, said, False, kept[1].get(name, "")))
        elif name in kept[1]:
            lines.append(kept[1][name])
    lines += ["", "Peak resident memory over peak live bytes, of the patterns that decide fragmentation:", ""]
    lines += ["| pattern | live | " + " | ".join(SUBJECTS) + " | least first |", "|---" * (len(SUBJECTS) + 3) + "|"]
    for name in DECIDERS:
        values = of(peaks, name)
        if values:
            over = ratios_of(kept[2].get(name, ""), SUBJECTS) | {s: value / live[name] for s, value in values.items()}
            cells = [f"{over[s]:.2f}" if s in over else "" for s in SUBJECTS]
            order = ", ".join(sorted(over, key=over.get))
            lines.append("| " + " | ".join([name, f"{live[name] / 2**20:.1f} MiB", *cells, order]) + " |")
        elif name in kept[2]:
            lines.append(kept[2][name])
    document.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)


main()
