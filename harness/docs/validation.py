#!/usr/bin/env python3
"""Assembles VALIDATION.md from validation-head.md and the figures in validation/.

validation.py                           writes VALIDATION.md anew, programs in the order of validate.sh
validation.py --store NAME KIND WHAT COMMIT TIME <JSON
                                        keeps what `heaplab validate --format json` printed as validation/NAME.json
validation.py --merge NAME COMMIT TIME <JSON
                                        the same of some of its rows, in the place of those that are there
validation.py --undecided MOST [NAME…]  prints the programs with rows that have no verdict and had fewer than MOST runs, and these rows
validation.py --took                    prints the programs and how many seconds a round of all subjects took when they were measured last
"""

import json
import os
import re
import shlex
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
STORE = os.path.join(HERE, "validation")


def store(name, kind, what, commit, time):
    found = json.load(sys.stdin)
    found["measured"] = {"kind": kind, "what": what, "commit": commit, "time": time}
    write(name, found)


def write(name, found):
    """Whole or not at all: an interruption leaves what was there."""
    path = os.path.join(STORE, name + ".json")
    with open(path + ".new", "w") as file:
        # One line a subject: what changes is seen, and the file stays short.
        rows = ",\n".join(json.dumps(row, sort_keys=True) for row in found.pop("subjects"))
        file.write(json.dumps(found, sort_keys=True)[:-1] + ', "subjects": [\n' + rows + "\n]}\n")
    os.replace(path + ".new", path)


# Of the time in allocation: runs of another day are not set beside those of the other rows.
TIMES = ["predicted_allocation_s", "predicted_allocation_samples", "actual_allocation_s", "actual_allocation_spread",
         "actual_allocation_samples", "actual_allocation_disturbed", "actual_cpu_s"]


def merge(name, commit, time):
    """Peaks of some rows anew, whatever comes. Their order with the others' is told from all, that by time stays."""
    found, new = read(name), json.load(sys.stdin)
    rows = {row["subject"]: row for row in found["subjects"]}
    for row in new["subjects"]:
        if row.get("error") is None or row["subject"] not in rows:
            sys.exit(f"validation.py: no row {row['subject']} of {name} to take: {row.get('reason', 'there was none before')}")
        old = rows[row["subject"]]
        if undisturbed(row) < undisturbed(old):
            print(f"validation.py: {name} {row['subject']} stays as it was: {undisturbed(row)} undisturbed runs, and before {undisturbed(old)}",
                  file=sys.stderr)
            continue
        row.update({key: old[key] for key in TIMES if key in old})
        row["measured"] = {"commit": commit, "time": time, "others": (new["beside"] or {}).get("others"),
                           "recordings": new["recordings"], "disturbed_recordings": new["disturbed_recordings"]}
        rows[row["subject"]] = row
    found["subjects"] = [rows[row["subject"]] for row in found["subjects"]]
    found["remarks"] = list(dict.fromkeys((found.get("remarks") or []) + (new.get("remarks") or [])))
    found["ranking"] = ranking(found["subjects"])
    write(name, found)


def undisturbed(row):
    """Runs, or replays of recordings, that nothing disturbed, of the side that has fewer."""
    return min(len(row[f"{side}_samples"]) - row[f"{side}_disturbed"] for side in ("predicted", "actual"))


def ranking(rows):
    """How pairs are ordered by peak, as `heaplab validate` tells it (harness/src/validation.rs)."""
    told = {"agree": 0, "disagree": 0, "undecided": 0}
    whole = [row for row in rows if row["predicted_peak_bytes"] is not None and row["actual_samples"]]
    for at, one in enumerate(whole):
        for other in whole[at + 1:]:
            first, second = one["actual_samples"], other["actual_samples"]
            middle = [statistics.median(first), statistics.median(second)]
            if abs(middle[0] - middle[1]) <= 0.05 * max(middle) or min(first) <= max(second) and min(second) <= max(first):
                told["undecided"] += 1
            elif (predicted := [row["predicted_peak_bytes"] for row in (one, other)])[0] != predicted[1] and (
                    max(first) < min(second)) == (predicted[0] < predicted[1]):
                told["agree"] += 1
            else:
                told["disagree"] += 1
    return told


def undecided(most, *names):
    """Programs, of these if any are named, and their rows without a verdict. On standard error what is known of them."""
    for name in (name for name in order() if not names or name in names):
        rows, found = [], read(name)
        for row in (found or {"subjects": []})["subjects"]:
            if row.get("decided") or row["error"] is None:
                continue
            runs = undisturbed(row)
            told = f"{name} {row['subject']}: {percent(row['error'], True)} by {runs} runs" + likely(found["trace"]["threads"], row, runs)
            if runs >= int(most):
                print(f"{told}; not measured again: MOST above {runs} asks for more", file=sys.stderr)
                continue
            print(told, file=sys.stderr)
            rows.append(row["subject"])
        if rows:
            print(name, ",".join(rows))


def took():
    """Programs and the seconds of a round of all subjects when they were measured last."""
    for name in order():
        if (found := read(name)) and found.get("beside"):
            rounds = statistics.mean(len(row["actual_samples"]) for row in found["subjects"])
            print(name, f"{found['beside']['seconds'] / max(rounds, 1):.2f}")


def likely(threads, row, runs):
    """How many runs would tell, if the interval shrinks with the root of them and the error stays what it is."""
    if not (interval := row.get("error_interval")):
        return ""
    goal = 0.02 if threads <= 1 else max(0.03, row["actual_spread"])
    low, high = interval
    if low >= -goal and high <= goal:
        return ", too many of its runs or recordings were disturbed"
    room = max(abs(goal - abs(row["error"])), 1e-3)
    wanted = max(runs + 1, runs * ((high - low) / 2 / room) ** 2)
    return f", {percent(low, True)} to {percent(high, True)}; some {wanted:.0f} runs would tell"


def order():
    """Names of the programs as validate.sh has them."""
    with open(os.path.join(HERE, "validate.sh")) as file:
        return re.findall(r'^ *(?:[A-Z_]+=\S+ )*validate (\S+) (?:open|"set aside") ', file.read(), re.M)


def read(name):
    path = os.path.join(STORE, name + ".json")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def number(value, digits):
    """Rounded, without zeroes at its end."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def mib(value):
    return "-" if value is None else number(value / 1048576, 2) + " MiB"


def percent(value, signed=False):
    if value is None:
        return "-"
    text = number(100 * value, 1)
    return ("+" if signed and not text.startswith("-") else "") + text + " %"


def ms(value):
    return "-" if value is None else f"{1000 * value:.0f} ms"


def quartiles(three):
    if three is None or three[2] - three[0] < 0.001 * three[1]:
        return ""
    return f"{number(three[0] / 1048576, 1)} to {number(three[2] / 1048576, 1)}"


def marks(row):
    missed = "" if row["within_goal"] is not False else " **miss**"
    # Under this allocator the program does not ask for what was recorded.
    if (row.get("asked") or {}).get("otherwise"):
        own = row["asked"].get("error")
        missed += f" (asks {percent(row['asked']['differs'], True)}" + (f", from its own {percent(own, True)})" if own is not None else ")")
    return missed + (" ?" if row.get("decided") is False else "")


def pairs(ranking):
    return ranking["agree"], ranking["agree"] + ranking["disagree"]


def title(name, found):
    kind = found["measured"]["kind"]
    return name if kind == "open" else f"{name} ({kind})"


def section(name, found):
    measured, trace, subjects = found["measured"], found["trace"], found["subjects"]
    runs, disturbed = sum(len(row["actual_samples"]) for row in subjects), sum(row["actual_disturbed"] for row in subjects)
    others = percent((found["beside"] or {}).get("others"))
    out = [f"## {title(name, found)}", "",
           f"{measured['what']}. `{shlex.join(found['command'])}`: {trace['events']} calls, {trace['threads']} thread"
           f"{'' if trace['threads'] == 1 else 's'}, peak live {mib(trace['peak_live_bytes'])}; {found['recordings']} recordings. Measured at "
           f"commit {measured['commit']}, {measured['time']}; other programs took {others} of a CPU meanwhile, and {disturbed} of {runs} "
           f"runs and {found['disturbed_recordings']} recordings were disturbed.", "",
           "| subject | runs | predicted peak | quartiles | spread | actual peak | quartiles | own spread | error | 95 % interval | "
           "predicted time | actual time | own spread |", "|---|" + "---:|" * 12]
    for row in subjects:
        interval = row.get("error_interval")
        between = f"{percent(interval[0], True)} to {percent(interval[1], True)}" if interval else "-"
        failed = f" FAILED {row['reason']}" if row.get("reason") else ""
        out.append("| " + " | ".join([
            row["subject"], str(len(row["actual_samples"])), mib(row["predicted_peak_bytes"]), quartiles(row["predicted_quartiles"]),
            percent(row["predicted_spread"]), mib(row["actual_peak_bytes"]), quartiles(row["actual_quartiles"]),
            percent(row["actual_spread"]), percent(row["error"], True) + marks(row) + failed, between, ms(row["predicted_allocation_s"]),
            ms(row["actual_allocation_s"]), percent(row["actual_allocation_spread"])]) + " |")
    (agree, decided), (faster, timed) = pairs(found["ranking"]), pairs(found["time_ranking"])
    out += ["", f"Order by peak: {agree} of {decided} pairs right, {found['ranking']['undecided']} not separated. By time: {faster} of "
            f"{timed} right, {found['time_ranking']['undecided']} not separated."]
    anew = {}
    for row in subjects:
        if "measured" in row:
            anew.setdefault(json.dumps(row["measured"], sort_keys=True), []).append(row["subject"])
    for measured, names in anew.items():
        later = json.loads(measured)
        out += ["", f"The peaks of {', '.join(names)} were measured anew at commit {later['commit']}, {later['time']}, on {later['recordings']} "
                f"recordings, of which {later['disturbed_recordings']} were disturbed; other programs took {percent(later['others'])} of a CPU."]
    for row in subjects:
        if asked := row.get("asked"):
            allocations, _, live = asked["replayed"]
            out += ["", f"Under {row['subject']} the program asks {'otherwise' if asked['otherwise'] else 'for the same'}: at most "
                    f"{mib(asked['peak_live_bytes'])} alive and {asked['allocations']:.0f} allocations in {asked['recordings']} recordings with "
                    f"it underneath, {mib(live)} and {allocations:.0f} in those replayed ({percent(asked['differs'], True)} alive)."]
            if asked.get("error") is not None:
                out[-1] += (f" Predicted from recordings with it underneath: {mib(asked['predicted_peak_bytes'])}, "
                            f"{percent(asked['error'], True)}.")
    for remark in found.get("remarks") or []:
        out += ["", f"{remark}."]
    own = {row["subject"]: row["own_mappings_bytes"] for row in subjects if row.get("own_mappings_bytes") is not None}
    if max([found["own_mappings_bytes"], *own.values()]) >= 1048576:
        under = ", ".join(f"{subject} {mib(bytes)}" for subject, bytes in own.items())
        out += ["", "What does not come from malloc is left out of the actual peaks: " + (f"{under}." if own else
                f"{mib(found['own_mappings_bytes'])}, measured on the C library's malloc.")]
    return "\n".join(out)


def commits(found):
    """That of the whole and those of rows that were measured anew."""
    of_rows = (row["measured"]["commit"] for row in found["subjects"] if "measured" in row)
    return dict.fromkeys([found["measured"]["commit"], *of_rows])


def table(programs):
    out = ["| program | commit | threads | others | system | jemalloc | mimalloc | spanalloc | order by peak | order by time |",
           "|---|---|---:|---:|---:|---:|---:|---:|---|---|"]
    rows = [row for _, found in programs for row in found["subjects"]]
    for name, found in programs:
        cells = {row["subject"]: "-" if row["error"] is None else f"{100 * row['error']:+.1f} %{marks(row)}" for row in found["subjects"]}
        agreed = [f"{agree} of {decided}" if decided else "not separated"
                  for agree, decided in (pairs(found["ranking"]), pairs(found["time_ranking"]))]
        others = (found["beside"] or {}).get("others")
        out.append("| " + " | ".join([
            title(name, found), ", ".join(commits(found)), str(found["trace"]["threads"]),
            "-" if others is None else f"{100 * others:.0f} %",
            *(cells.get(subject, "-") for subject in ("system", "jemalloc", "mimalloc", "spanalloc")), *agreed]) + " |")
    right = {which: [sum(n) for n in zip(*(pairs(found[which]) for _, found in programs))] for which in ("ranking", "time_ranking")}
    held, open_, missed = ([bool(row["within_goal"]) for row in rows if test(row)] for test in (
        lambda row: row.get("decided") and row["within_goal"], lambda row: not row.get("decided"),
        lambda row: row.get("decided") and not row["within_goal"]))
    out += ["", f"Of {len(rows)} rows {len(held)} are within the goal and {len(missed)} miss it; {len(open_)} have no verdict (?), and of "
            f"these {sum(open_)} have a median within it. Over all programs {right['ranking'][0]} of "
            f"{right['ranking'][1]} pairs are ordered by peak as the program orders them, and {right['time_ranking'][0]} of "
            f"{right['time_ranking'][1]} by time."]
    return "\n".join(out)


def assemble():
    programs = [(name, found) for name in order() if (found := read(name))]
    with open(os.path.join(HERE, "validation-head.md")) as file:
        parts = [file.read().rstrip()]
    if programs:
        parts.append(table(programs))
    parts += [section(name, found) for name, found in programs]
    with open(os.path.join(HERE, "VALIDATION.md"), "w") as file:
        file.write("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--store"]:
        store(*sys.argv[2:])
    elif sys.argv[1:2] == ["--merge"]:
        merge(*sys.argv[2:])
    elif sys.argv[1:2] == ["--undecided"]:
        undecided(*sys.argv[2:])
    elif sys.argv[1:2] == ["--took"]:
        took()
    else:
        assemble()
