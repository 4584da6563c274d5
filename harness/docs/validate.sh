#!/usr/bin/env bash
# Measures the rows of VALIDATION.md: predicted against actual peak memory and time in allocation of real programs.
#
#   cargo build --release && harness/docs/validate.sh target/release/heaplab [--about] [--undecided] [PROGRAM…]
#
# With names of programs only those are measured; with `--undecided` only the rows that have no verdict and had fewer than MOST undisturbed
# runs: their peaks anew, in the place of those that are there, beside which the other rows and all times stay. So an interrupted one is
# taken up again by the same command. How long it takes is said before; with `--about` that is all. A program's figures go to validation/NAME.json as soon as they are there, and
# VALIDATION.md is assembled from all that lie there (validation.py), whenever they were measured: a row names its commit. RUNS (4)
# and MOST (16) are the runs under each subject at first and at most; LIMIT, seconds, asks for further runs only where there is
# time for them. Needs the programs (Debian: apt-get install python3 sqlite3 g++ redis-server redis-tools perl jq xz-utils git
# libxml2-utils ripgrep lua5.4 gawk graphviz zstd ruby imagemagick bc make groff qpdf).
set -euo pipefail
source "$(dirname "$0")/../../ci/common.sh"
heaplab=$(path_of_heaplab "${1:-}")
shift
here=$(cd "$(dirname "$0")" && pwd)
runs=${RUNS:-4} most=${MOST:-16} failed=0
measure=yes only=" "
declare -A rows=() seconds=() took=()
if [ "${1:-}" = --about ]; then
    measure=
    shift
fi
undecided=
if [ "${1:-}" = --undecided ]; then
    undecided=yes
    shift
fi
for name in "$@"; do
    grep -Eq "^ *([A-Z_]+=[^ ]+ )*validate $name " "$0" || { echo "validate.sh: no program is called '$name'" >&2; exit 2; }
    only+="$name "
done
if [ -n "$undecided" ]; then
    lines=$(python3 "$here/validation.py" --undecided "$most" "$@")
    if [ -z "$lines" ]; then
        echo "validate.sh: every row has a verdict, or had $most runs" >&2
        exit 0
    fi
    only=" "
    while read -r name subjects; do
        only+="$name " rows[$name]=$subjects
    done <<<"$lines"
fi
# heaplab ends in order when it is interrupted; without this the next program would begin.
trap 'exit 130' INT TERM
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../workloads/traces/inputs.sh" "$work"
"$here/validate-inputs.sh" "$work"
commit=$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)

# about NAME SUBJECTS OPTION… -- CMD…: seconds that the first rounds of so many subjects take: as when all four were measured last; of a program that
# never was, the program alone, once; with each subject it is run twice a round and replayed, which takes about three times as long as it,
# and recorded once for all of them. A server is given a minute.
about() {
    local last=${took[$1]:-} subjects=$2 alone=0
    shift 2
    if [ -z "$last" ] && [[ " $* " == *" --until-ready "* ]]; then
        echo 60
        return
    fi
    if [ -z "$last" ]; then
        while [ "$1" != -- ]; do shift; done
        shift
        local begin=$EPOCHREALTIME
        (cd "$work" && "$@") >"$work/alone.out" 2>&1 </dev/null || true
        alone=$(awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { print end - begin }')
    fi
    awk -v alone="$alone" -v last="${last:-0}" -v rounds="$runs" -v subjects="$subjects" \
        'BEGIN { printf "%d", last ? last * rounds * (5 * subjects + 1) / 21 + 1 : 10 + alone * rounds * (5 * subjects + 1) }'
}

# validate NAME KIND DESCRIPTION OPTION… -- CMD…: one program's figures; KIND is "open" or "set aside". validation.py reads the names here.
# The first time it is only looked at how long that takes.
validate() {
    local name=$1 kind=$2 description=$3
    shift 3
    if [ -n "${only// /}" ] && [[ "$only" != *" $name "* ]]; then return; fi
    local subjects=${rows[$name]:-system,jemalloc,mimalloc,spanalloc} most_here=$most
    if [ -z "${seconds[$name]:-}" ]; then
        local commas=${subjects//[^,]/}
        seconds[$name]=$(about "$name" $((${#commas} + 1)) "$@")
        return
    fi
    local first=${seconds[$name]}
    # Each doubling takes as long as all before it.
    while [ -n "${LIMIT:-}" ] && [ "$most_here" -gt "$runs" ] && [ $((first * most_here / runs)) -gt "$LIMIT" ]; do
        most_here=$((most_here / 2))
    done
    echo "$(date +%T) $name ($subjects): about $first s, up to $((first * most_here / runs)) s where $most_here runs are wanted" >&2
    # A row that failed is shown as such; without any figures those that are there stay.
    (cd "$work" && "$heaplab" --quiet validate -a "$subjects" --runs "$runs" --most-runs "$most_here" --format json "$@") >"$work/$name.json" || true
    local time
    time="$(date -u '+%Y-%m-%d %H:%M') UTC"
    if [ ! -s "$work/$name.json" ]; then
        echo "$(date +%T) $name: FAILED, its figures stay as they were" >&2
        failed=1
        return
    fi
    if [ -z "${rows[$name]:-}" ]; then
        python3 "$here/validation.py" --store "$name" "$kind" "$description" "$commit" "$time" <"$work/$name.json"
    elif ! python3 "$here/validation.py" --merge "$name" "$commit" "$time" <"$work/$name.json"; then
        failed=1
        return
    fi
    python3 "$here/validation.py"
    echo "$(date +%T) $name: done" >&2
}

programs() {
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
    # Set aside once, for a method that was changed after they had been seen.
    validate lua open "Tables of strings, built and dropped" -- lua5.4 tables.lua
    validate gawk open "Sums by key over a log" -- gawk -f sums.awk log.txt
    validate dot open "The layout of a graph" -- dot -Tsvg -o graph.svg graph.dot
    validate zstd open "Compression of a log, two threads" -- zstd -q -f -T2 -12 log.txt -o log.txt.zst
    validate ruby open "Tables of strings, grouped and joined" -- ruby tables.rb
    validate imagemagick open "A picture drawn, blurred, turned and scaled" -- convert -limit thread 2 -seed 7 -size 700x500 plasma:fractal \
        -blur 0x3 -rotate 12 -resize 140% -colors 64 picture.png
    validate bc open "Roots and factorials with 500 digits" -- bc -lq digits.bc
    # Set aside: run for the first time when the method was fixed, at f1fba29.
    validate make "set aside" "A makefile of 6,000 targets, nothing run" -- make -n -r -f many.mk all
    validate troff "set aside" "A document of 400 chapters" -- troff -ms -Tutf8 document.ms
    validate qpdf "set aside" "A file of 40,000 objects rewritten" -- qpdf --qdf --object-streams=disable objects.pdf rewritten.pdf
}

while read -r name last; do took[$name]=$last; done < <(python3 "$here/validation.py" --took)
programs
total=0
for name in "${!seconds[@]}"; do total=$((total + seconds[$name])); done
echo "$(date +%T) programs to measure: ${#seconds[@]}, about $(((total + 59) / 60)) min on an idle machine, up to $(((total * most / runs + 59) / 60)) min where $most runs are wanted" >&2
if [ -n "$measure" ]; then programs; fi
exit $failed
