#!/usr/bin/env bash
# Makes VALIDATION.md again: predicted against actual peak memory and time in allocation of real programs.
#
#   cargo build --release && harness/docs/validate.sh target/release/heaplab [PROGRAM…]
#
# With names of programs only those are run and printed. KEEP=FOLDER keeps each program's figures there and takes those that
# are there already instead of measuring again; the table says on how many stretches it was measured. Needs the programs (Debian:
# apt-get install python3 sqlite3 g++ redis-server redis-tools perl jq xz-utils git libxml2-utils ripgrep lua5.4 gawk graphviz zstd
# ruby imagemagick bc).
set -euo pipefail
heaplab=$(realpath "${1:?usage: validate.sh PATH-OF-HEAPLAB [PROGRAM…]}")
shift
only=" $* "
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../workloads/traces/inputs.sh" "$work"
"$here/validate-inputs.sh" "$work"
commit=$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)
# Runs under each subject at first, and at most where those do not suffice for a verdict.
runs=${RUNS:-4} most=${MOST:-16}

# validate NAME KIND DESCRIPTION OPTION… -- CMD…: one program's figures; KIND is "open" or "set aside".
validate() {
    local name=$1 kind=$2 description=$3
    shift 3
    if [ -n "${only// /}" ] && [[ "$only" != *" $name "* ]]; then return; fi
    if [ -s "${KEEP:-}/$name.json" ]; then
        cp "$KEEP/$name.json" "$KEEP/$name.made" "$work/"
    else
        echo "commit $commit, $(date -u '+%Y-%m-%d %H:%M') UTC" >"$work/$name.made"
        (cd "$work" && "$heaplab" --quiet validate --runs "$runs" --most-runs "$most" --format json "$@") >"$work/$name.json" || true
        if [ -n "${KEEP:-}" ]; then cp "$work/$name.json" "$work/$name.made" "$KEEP/"; fi
    fi
    jq -r --arg name "$name" --arg kind "$kind" --arg what "$description" --arg made "$(cat "$work/$name.made")" '
        def mib: if . == null then "-" else (. / 1048576 * 100 | round / 100 | tostring) + " MiB" end;
        def ends: if . == null or (.[2] - .[0]) < 0.001 * .[1] then "" else "\(.[0] / 1048576 * 10 | round / 10) to \(.[2] / 1048576 * 10 | round / 10)" end;
        def pct: if . == null then "-" else (. * 1000 | round / 10 | tostring) + " %" end;
        def signed: if . == null then "-" else (if . >= 0 then "+" else "" end) + pct end;
        def ms: if . == null then "-" else (. * 1000 | round | tostring) + " ms" end;
        "\n## \($name)\(if $kind == "open" then "" else " (\($kind))" end)\n\n\($what). `\(.command | join(" "))`: \(.trace.events) calls, \(.trace.threads) thread\(if .trace.threads == 1 then "" else "s" end), peak live \(.trace.peak_live_bytes | mib); \(.recordings) recordings. Measured at \($made); other programs took \(.beside.others | pct) of a CPU meanwhile, and \([.subjects[].actual_disturbed] | add) of \([.subjects[].actual_samples | length] | add) runs and \(.disturbed_recordings) recordings were disturbed.\n",
        "| subject | runs | predicted peak | quartiles | spread | actual peak | quartiles | own spread | error | 95 % interval | predicted time | actual time | own spread |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        (.subjects[] | "| \(.subject) | \(.actual_samples | length) | \(.predicted_peak_bytes | mib) | \(.predicted_quartiles | ends) | \(.predicted_spread | pct) | \(.actual_peak_bytes | mib) | \(.actual_quartiles | ends) | \(.actual_spread | pct) | \(.error | signed)\(if .within_goal == false then " **miss**" else "" end)\(if .decided == false then " ?" else "" end)\(if .reason then " FAILED \(.reason)" else "" end) | \(if .error_interval then "\(.error_interval[0] | signed) to \(.error_interval[1] | signed)" else "-" end) | \(.predicted_allocation_s | ms) | \(.actual_allocation_s | ms) | \(.actual_allocation_spread | pct) |"),
        "\nOrder by peak: \(.ranking.agree) of \(.ranking.agree + .ranking.disagree) pairs right, \(.ranking.undecided) not separated. By time: \(.time_ranking.agree) of \(.time_ranking.agree + .time_ranking.disagree) right, \(.time_ranking.undecided) not separated.",
        (.remarks[]? | "\n\(.)."), (if .own_mappings_bytes >= 1048576 then "\n\(.own_mappings_bytes | mib) that do not come from malloc are left out of the actual peaks." else empty end)
    ' "$work/$name.json" >"$work/$name.md"
    echo "$name" >>"$work/order"
    echo "$kind" >"$work/$name.kind"
    if [ -t 2 ]; then echo "$name: done" >&2; fi
}

# Chosen before the method was fixed and looked at on the way.
PYTHONMALLOC=malloc PYTHONHASHSEED=0 validate python3 open "JSON parsed into objects, every object through malloc" -- /usr/bin/python3 load.py
validate sqlite3 open "Inserts, look-ups, deletes" -- sqlite3 :memory: ".read load.sql"
validate cc1plus open "One C++ file" -- "$(g++ -print-prog-name=cc1plus)" -quiet -fpreprocessed -O1 unit.ii -o unit.s
validate redis-server open "A server under load" --until-ready tcp:7379 \
    --load 'redis-benchmark -p 7379 -q -n 100000 -r 20000 -d 200 -P 8 -t set,lpush,hset' -- redis-server --port 7379 --save ''
PERL_HASH_SEED=1 validate perl open "Word counts in hashes of arrays" -- perl words.pl
validate jq open "Groups of a list of events" -- jq 'group_by(.user) | map({user: .[0].user, n: length, tags: (map(.tags[]) | unique)}) | length' events.json
validate xz open "Compression of a log, three threads" -- xz -k -c -T 3 --block-size=1MiB -3 log.txt
PYTHONMALLOC=malloc PYTHONHASHSEED=0 validate python3-threads open "Four threads build tables" -- /usr/bin/python3 pool.py
validate git open "A log with patches of 600 commits" -- git -C repo log -p --stat --no-color
validate xmllint open "A document parsed, indented and written" -- xmllint --format --output /dev/null book.xml
validate ripgrep open "A search in all files with a pattern, two threads" -- rg -j 2 -c 'f[0-9]+.*(alpha|beta)[0-9]+|ERROR.*search' .
# Set aside: run for the first time when the method was fixed.
validate lua "set aside" "Tables of strings, built and dropped" -- lua5.4 tables.lua
validate gawk "set aside" "Sums by key over a log" -- gawk -f sums.awk log.txt
validate dot "set aside" "The layout of a graph" -- dot -Tsvg -o graph.svg graph.dot
validate zstd "set aside" "Compression of a log, two threads" -- zstd -q -f -T2 -12 log.txt -o log.txt.zst
# Set aside for the method with the subject's own time on the clock and with further runs.
validate ruby "set aside" "Tables of strings, grouped and joined" -- ruby tables.rb
validate imagemagick "set aside" "A picture drawn, blurred, turned and scaled" -- convert -limit thread 2 -seed 7 -size 700x500 plasma:fractal \
    -blur 0x3 -rotate 12 -resize 140% -colors 64 picture.png
validate bc "set aside" "Roots and factorials with 500 digits" -- bc -lq digits.bc

{
    cat "$here/validation-head.md"
    python3 - "$work" <<'PY'
import json, sys
work = sys.argv[1]
names = open(work + "/order").read().split()
rows_all, rows_met, rows_open = 0, 0, 0
right, all_pairs = {"ranking": 0, "time_ranking": 0}, {"ranking": 0, "time_ranking": 0}
print("| program | threads | others | system | jemalloc | mimalloc | spanalloc | order by peak | order by time |")
print("|---|---:|---:|---:|---:|---:|---:|---|---|")
for name in names:
    text = open(f"{work}/{name}.json").read()
    if not text.strip():
        print(f"| {name} | failed ||||||||")
        continue
    kind = open(f"{work}/{name}.kind").read().strip()
    found = json.loads(text)
    cells = []
    for row in found["subjects"]:
        error = row["error"]
        rows_all += 1
        rows_met += bool(row["within_goal"])
        decided = row.get("decided") is not False
        rows_open += not decided
        cells.append("-" if error is None else f"{100 * error:+.1f} %" + ("" if row["within_goal"] else " **miss**") + ("" if decided else " ?"))
    for which in right:
        right[which] += found[which]["agree"]
        all_pairs[which] += found[which]["agree"] + found[which]["disagree"]
    def order(pairs):
        decided = pairs["agree"] + pairs["disagree"]
        return f"{pairs['agree']} of {decided}" if decided else "not separated"
    shown = name if kind == "open" else f"{name} ({kind})"
    others = (found["beside"] or {}).get("others")
    beside = "-" if others is None else f"{100 * others:.0f} %"
    print(f"| {shown} | {found['trace']['threads']} | {beside} | " + " | ".join(cells) + f" | {order(found['ranking'])} | {order(found['time_ranking'])} |")
print(f"\n{rows_met} of {rows_all} rows are within the goal, {rows_open} without a verdict (?). Over all programs {right['ranking']} of {all_pairs['ranking']} pairs are ordered by peak as the program orders them, "
      f"and {right['time_ranking']} of {all_pairs['time_ranking']} by time.")
PY
    while read -r name; do cat "$work/$name.md"; done <"$work/order"
} >"$work/VALIDATION.md"
if [ -n "${only// /}" ]; then
    cat "$work/VALIDATION.md"
else
    mv "$work/VALIDATION.md" "$here/VALIDATION.md"
fi
