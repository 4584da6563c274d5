#!/usr/bin/env python3
"""How four allocators rank on each classic, beside what the original programs say: writes the table of RANKING.md.

    workloads/docs/ranking.py target/release/heaplab [BLOCKS [SCALE]]

Runs the classics under system, jemalloc, mimalloc and spanalloc (speed only) and rewrites the part between the marks of
RANKING.md. Figures of an allocator are its time relative to the system's, each the least of its blocks: what other
programs on the machine take only adds.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

# Time relative to glibc 2.36 of the original programs, run as mimalloc-bench (commit ce5784f) builds them, with two
# threads, on a virtual machine of 2 CPUs (AMD EPYC): jemalloc 5.3.1, mimalloc 2.4.1, mimalloc 3.4.3. Two or three quiet
# runs each: differences under 10 % (one thread) or 20 % (two) are ties.
ORIGINAL = {
    "tiny-churn": ("cfrac", 0.95, 0.85, 0.96),
    "glibc-simple": ("glibc-simple", 0.90, 0.75, 0.67),
    "glibc-thread": ("glibc-thread", 0.62, 0.62, 0.64),
    "alloc-test": ("alloc-test, 1 thread", 0.80, 0.73, 0.73),
    "mleak": ("mleak", 1.15, 1.11, 0.93),
    "malloc-large": ("malloc-large", 6.38, 1.55, 0.56),
    "cache-scratch": ("cache-scratch, 2 threads", 0.85, 0.96, 0.85),
    "cache-thrash": ("cache-thrash, 2 threads", 1.02, 1.01, 1.02),
    "larson": ("larson", 0.78, 0.65, 0.75),
    "mstress": ("mstress", 1.65, 0.85, 1.17),
    "rptest": ("rptest", 0.35, 0.66, 0.36),
    "xmalloc": ("xmalloc-test", 0.37, 0.29, 0.32),
}
CLASSICS = sorted(ORIGINAL) + [
    "sh6bench", "sh8bench", "bimodal", "checkerboard", "fragmenter", "ratchet", "robson", "sawtooth", "survivors",
]
SUBJECTS = ["system", "jemalloc", "mimalloc", "spanalloc"]
BEGIN, END = "<!-- table: written by ranking.py -->\n", "<!-- end of table -->"


def main():
    heaplab = sys.argv[1]
    blocks = sys.argv[2] if len(sys.argv) > 2 else "6"
    scale = sys.argv[3] if len(sys.argv) > 3 else "0.3"
    if heaplab.endswith(".json"):
        result = json.loads(pathlib.Path(heaplab).read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/ranking"
            subprocess.run(
                [heaplab, "run", "--quiet", "--no-report", "--measure", "speed", "--seed", "1", "--blocks", blocks,
                 "--scale", scale, "--subject", ",".join(SUBJECTS), "--out", out, *CLASSICS],
                check=True, stdout=subprocess.DEVNULL)
            result = json.loads(pathlib.Path(f"{out}/result.json").read_text())
    times = {}
    for cell in result["cells"]:
        metric = cell["metrics"].get("ns_per_op")
        if metric:
            times[cell["workload"], cell["subject"]] = metric
    lines = [
        "| classic | " + " | ".join(SUBJECTS) + " | fastest first | original: jemalloc | mimalloc 2 | mimalloc 3 | agree |",
        "|---" * (len(SUBJECTS) + 6) + "|",
    ]
    for name in CLASSICS:
        mine = {subject: times[name, subject] for subject in SUBJECTS if (name, subject) in times}
        if "system" not in mine:
            continue
        base = mine["system"]["low"]
        ratio = {subject: metric["low"] / base for subject, metric in mine.items()}
        cells = [f"{base:.1f} ns" if s == "system" else f"{ratio[s]:.2f}" if s in ratio else "" for s in SUBJECTS]
        order = ", ".join(sorted(ratio, key=ratio.get))
        if name in ORIGINAL:
            _, je, mi2, mi3 = ORIGINAL[name]
            said = [f"{je:.2f}", f"{mi2:.2f}", f"{mi3:.2f}", agree(ratio, je, mi2)]
        else:
            said = ["", "", "", ""]
        lines.append(f"| {name} | " + " | ".join(cells + [order] + said) + " |")
    document = pathlib.Path(__file__).with_name("RANKING.md")
    text = document.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    document.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)


def side(ratio):
    """Faster than glibc, like it, slower: ties within 15 %."""
    return -1 if ratio < 0.87 else 1 if ratio > 1.15 else 0


def agree(ratio, je, mi2):
    """Which of the two stand on another side of the system's allocator than in the original; the built-in mimalloc is of line 2."""
    wrong = []
    if "jemalloc" in ratio and side(ratio["jemalloc"]) != side(je):
        wrong.append("jemalloc")
    if "mimalloc" in ratio and side(ratio["mimalloc"]) != side(mi2):
        wrong.append("mimalloc")
    return "yes" if not wrong else "not " + ", ".join(wrong)


main()
