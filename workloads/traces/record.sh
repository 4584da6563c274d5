#!/usr/bin/env bash
# Records the traces of this folder again, from Debian's own programs and inputs made here.
#
#   cargo build --release && workloads/traces/record.sh target/release/heaplab [NAME…]
#
# Needs the Debian packages named below, those of the traces that are wanted. Inputs come from inputs.sh and inputs.py with fixed seeds, so a trace differs from the
# committed one only where the program's version does, and where threads meet by chance. PROVENANCE.md is written anew for
# each trace that was recorded. Each file is packed as small as it gets; all together must stay below 20 MB.
set -euo pipefail

# Debian packages that each trace needs; python3, g++ and git make the inputs of all.
declare -A needs=(
    [python-json]=python3 [sqlite-insert]=sqlite3 [cc1plus-map]=g++ [git-log]=git [redis-mixed]="redis-server redis-tools"
    [nginx-pages]="nginx-light curl" [ripgrep-json]=ripgrep [fd-tree]=fd-find [imagemagick-stack]=imagemagick [z3-factors]=z3
    [xmllint-format]=libxml2-utils [jq-records]=jq [make-project]="make gcc"
)
heaplab=$(realpath "${1:?usage: record.sh PATH-OF-HEAPLAB [NAME…]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
all=(python-json sqlite-insert cc1plus-map git-log redis-mixed nginx-pages ripgrep-json fd-tree imagemagick-stack z3-factors xmllint-format jq-records make-project)
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=("${all[@]}")
packages=(python3 g++ git)
for name in "${wanted[@]}"; do
    [ -n "${needs[$name]:-}" ] || {
        echo "record.sh: no trace is called '$name'; there are ${all[*]}" >&2
        exit 2
    }
    read -ra more <<<"${needs[$name]}"
    packages+=("${more[@]}")
done
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || {
        echo "record.sh: the package '$package' is missing; apt-get install ${packages[*]}" >&2
        exit 3
    }
done
"$here/inputs.sh" "$work"
# From inside the folder, so that no stored command line has a path of this machine.
cd "$work"
python3 "$here/inputs.py"

version() { dpkg-query -W -f '${Package} ${Version}' "$1"; }

# record NAME PACKAGE PURPOSE [OPTION…] -- CMD…: one trace and its line of provenance.
record() {
    local name=$1 package=$2 purpose=$3
    shift 3
    echo "recording $name" >&2
    "$heaplab" record -o "$name.new.hltrace" "$@" >"$name.out" 2>"$name.log" || {
        cat "$name.log" >&2
        echo "record.sh: $name failed" >&2
        exit 1
    }
    "$heaplab" --quiet trace repack "$name.new.hltrace" -o "$name.hltrace" --note "purpose: $purpose"
    "$heaplab" trace verify "$name.hltrace" >&2
    mv "$name.hltrace" "$here/$name.hltrace"
    while [ "$1" != -- ]; do shift; done
    shift
    "$heaplab" trace info --format json "$here/$name.hltrace" >info.json
    python3 - "$here/PROVENANCE.md" info.json "$name" "$purpose" "$(version "$package")" "$(stat -c %s "$here/$name.hltrace")" "$*" <<'PY'
import json, os, sys
table, info, name, purpose, version, size, command = sys.argv[1:]
with open(info) as file:
    about = json.load(file)
finish = about.get("finish") or {}
threads, processes = about["threads"], about["processes"]
cells = [
    name, purpose, version, f"`{command}`".replace("|", "\\|"), about["header"]["created"][:10],
    f"{finish.get('recorder_ns_per_event') or 0:.0f} ns", str(processes), str(threads), f"{about['events']:,}",
    f"{about['peak_live_bytes'] / 2**20:.1f} MiB", f"{int(size):,}",
]
head = """# Where the traces come from

Written by `record.sh` in this folder, which records them again (`record.sh HEAPLAB [NAME…]`). Programs and versions are Debian's. The
recorder's cost is what an event added on the recording machine (2 CPUs): times inside a trace carry it. Each says how much was
written of its large blocks (format 2.1, *Written parts*); a replay for memory writes the same pages.

| trace | what it is | package | command | recorded | recorder | processes | threads | events | peak live | bytes |
|---|---|---|---|---|---|---|---|---|---|---|
"""
rows = {}
if os.path.exists(table):
    with open(table) as file:
        for line in file:
            words = line.split(" | ")
            if line.startswith("| ") and len(words) == len(cells):
                rows[words[0][2:]] = line
rows[name] = "| " + " | ".join(cells) + " |\n"
rows.pop("trace", None)
with open(table, "w") as file:
    file.write(head + "".join(rows[key] for key in sorted(rows)))
PY
}

for name in "${wanted[@]}"; do
    case $name in
    python-json)
        # PYTHONMALLOC=malloc: every object is a call of malloc; the default would hide small ones in arenas.
        PYTHONMALLOC=malloc PYTHONHASHSEED=0 record $name python3 "interpreter: parse JSON into objects and drop them (PYTHONMALLOC=malloc)" -- \
            /usr/bin/python3 load.py
        ;;
    sqlite-insert)
        record $name sqlite3 "database: inserts, index look-ups, deletes, an aggregate" -- sqlite3 :memory: ".read load.sql"
        ;;
    cc1plus-map)
        # The driver forks; the compiler proper is what allocates, so it is recorded directly, on preprocessed input.
        record $name g++ "compiler: the C++ front and back end on one file with the standard containers" -- \
            "$(g++ -print-prog-name=cc1plus)" -quiet -fpreprocessed -O1 unit.ii -o unit.s
        ;;
    git-log)
        record $name git "version control: the log of 61 commits with patches and statistics" -- \
            /usr/bin/git -C tree log -p --stat --no-color
        ;;
    redis-mixed)
        record $name redis-server "cache server under load: strings, counters, lists, sets, hashes from 20 clients (its allocator is jemalloc)" \
            --until-ready "redis-cli -p 16399 ping" --stop-signal TERM \
            --load "redis-benchmark -p 16399 -q -n 16000 -c 20 -r 5000 -d 100 -t set,get,incr,lpush,rpop,sadd,hset,lrange_100" -- \
            redis-server --port 16399 --save "" --appendonly no
        ;;
    nginx-pages)
        record $name nginx-light "web server under load: 12,000 pages with server-side includes and gzip" \
            --until-ready tcp:18080 --stop-signal QUIT --load "curl -s --compressed --config urls.txt" -- \
            /usr/sbin/nginx -p . -c nginx.conf
        ;;
    ripgrep-json)
        record $name ripgrep "search tool: a pattern in 1,500 files, four threads, results as JSON" -- rg -j4 --json "[aeiou]{3}" tree
        ;;
    fd-tree)
        record $name fd-find "multithreaded Rust program: a parallel walk over a tree with hidden files" -- \
            fdfind -j4 -H -I --regex "[a-m]" tree
        ;;
    imagemagick-stack)
        record $name imagemagick "image tool: three generated pictures scaled, turned, blurred, written as PNG" -- \
            /usr/bin/convert-im6.q16 -limit thread 2 -seed 7 -size 640x480 plasma:red-blue plasma:green-white plasma:fractal \
            "(" -clone 0--1 -resize 50% ")" "(" -clone 0--1 -rotate 30 ")" "(" -clone 0--1 -blur 0x2 ")" -resize "160x120!" out%d.png
        ;;
    z3-factors)
        record $name z3 "solver: the factors of a product of primes, as bit vectors" -- z3 factors.smt2
        ;;
    xmllint-format)
        record $name libxml2-utils "XML tool: a document of 24,000 items parsed into a tree and written again" -- xmllint --format doc.xml
        ;;
    jq-records)
        record $name jq "JSON tool: 60,000 records filtered and reshaped" -- \
            jq -c 'select(.id%3==0)|{user,sum:(.n|add),w:(.text|split(" ")|length)}' doc.json
        ;;
    make-project)
        record $name make "build of a C project: make, gcc, cc1, as, ld; every process" -- make -C project -B
        ;;
    esac
done
total=$(cat "$here"/*.hltrace | wc -c)
echo "all traces together: $total bytes" >&2
[ "$total" -le 20000000 ] || {
    echo "record.sh: the traces are larger than 20 MB; record less" >&2
    exit 1
}
