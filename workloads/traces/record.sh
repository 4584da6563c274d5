#!/usr/bin/env bash
# Records the traces of this folder again, from Debian's own programs and inputs made here.
#
#   cargo build --release && workloads/traces/record.sh target/release/heaplab [NAME…]
#
# Needs: python3, sqlite3, g++ (Debian: apt-get install python3 sqlite3 g++). Inputs are generated with fixed seeds, so a
# trace differs from the committed one only where the program's version does. Provenance is written to PROVENANCE.md.
set -euo pipefail

heaplab=$(realpath "${1:?usage: record.sh PATH-OF-HEAPLAB [NAME…]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=(python-json sqlite-insert cc1plus-map)

# record NAME PURPOSE VERSION -- CMD…: one trace and its line of provenance.
record() {
    local name=$1 purpose=$2 version=$3
    shift 4
    echo "recording $name" >&2
    "$heaplab" record -o "$work/$name.hltrace" -- "$@" >"$work/$name.out" 2>"$work/$name.log" || {
        cat "$work/$name.log" >&2
        echo "record.sh: $name failed" >&2
        exit 1
    }
    "$heaplab" trace verify "$work/$name.hltrace" >&2
    mv "$work/$name.hltrace" "$here/$name.hltrace"
    grep -v "^| $name |" "$here/PROVENANCE.md" >"$work/provenance" || true
    printf '| %s | %s | %s | `%s` | %s | %s |\n' "$name" "$purpose" "$version" \
        "$(printf '%s ' "$@" | sed "s#$work/##g; s/ \$//; s/|/\\\\|/g")" "$(date -u +%F)" \
        "$("$heaplab" trace stats --format json "$here/$name.hltrace" | python3 -c '
import json, sys
s = json.load(sys.stdin)
calls = s["allocations"] + s["frees"] + s["reallocs"]
print("{:,} calls, {} threads, peak live {:,} B".format(calls, s["threads"], s["peak_live_bytes"]))')" >>"$work/provenance"
    mv "$work/provenance" "$here/PROVENANCE.md"
}

if ! [ -f "$here/PROVENANCE.md" ]; then
    {
        echo "# Where the traces come from"
        echo
        echo "Recorded by \`record.sh\` in this folder. Times inside a trace carry the recorder's own cost, which its header states."
        echo
        echo "| trace | what it is | version | command | recorded | contents |"
        echo "|---|---|---|---|---|---|"
    } >"$here/PROVENANCE.md"
fi

for name in "${wanted[@]}"; do
    case $name in
    python-json)
        cat >"$work/load.py" <<'PY'
import json, random
random.seed(20)
records = [
    {
        "id": i,
        "name": "".join(random.choice("abcdefghij") for _ in range(random.randint(3, 40))),
        "tags": [random.choice(["red", "green", "blue", "grey"]) for _ in range(random.randint(0, 6))],
        "position": {"x": random.random(), "y": random.random()},
    }
    for i in range(12000)
]
text = json.dumps(records)
for _ in range(3):
    table = {r["name"]: r for r in json.loads(text)}
print(len(table))
PY
        # PYTHONMALLOC=malloc: every object is a call of malloc; the default would hide small ones in arenas.
        PYTHONMALLOC=malloc PYTHONHASHSEED=0 record python-json "interpreter: parse JSON into objects and drop them (PYTHONMALLOC=malloc)" "$(/usr/bin/python3 --version)" -- \
            /usr/bin/python3 "$work/load.py"
        ;;
    sqlite-insert)
        python3 - >"$work/load.sql" <<'PY'
import random
random.seed(21)
print("PRAGMA cache_size=-8000; CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB); CREATE INDEX tk ON t(k); BEGIN;")
for i in range(40000):
    print(f"INSERT INTO t VALUES({i}, 'key{random.randrange(10**6)}', randomblob({random.choice([10, 40, 200, 900])}));")
print("COMMIT;")
for i in range(1000):
    print(f"SELECT count(*), sum(length(v)) FROM t WHERE k BETWEEN 'key{random.randrange(10**6)}' AND 'key{random.randrange(10**6)}' LIMIT 5;")
    if i % 4 == 0:
        print(f"DELETE FROM t WHERE id % 997 = {i % 997};")
print("SELECT k, group_concat(length(v)) FROM t GROUP BY substr(k,1,5) ORDER BY 2 LIMIT 100;")
PY
        record sqlite-insert "database: inserts, index look-ups, deletes, an aggregate" "sqlite3 $(sqlite3 --version | cut -d' ' -f1)" -- \
            sqlite3 ":memory:" ".read $work/load.sql"
        ;;
    cc1plus-map)
        cat >"$work/unit.cpp" <<'CPP'
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
struct Node { std::map<std::string, std::vector<int>> table; std::unique_ptr<Node> next; };
int run(const std::vector<std::string>& words) {
    std::unordered_map<std::string, std::function<int(int)>> actions;
    Node head;
    for (const auto& word : words) {
        head.table[word.substr(0, word.find_first_of("0123456789"))].push_back(static_cast<int>(word.size()));
        actions[word] = [n = word.size()](int x) { return x + static_cast<int>(n); };
    }
    int sum = 0;
    for (auto& [key, values] : head.table) { std::sort(values.begin(), values.end()); for (int v : values) sum += actions[key] ? actions[key](v) : v; }
    return sum;
}
CPP
        # The driver forks; the compiler proper is what allocates, so it is recorded directly, on preprocessed input.
        g++ -E -P -D_GNU_SOURCE "$work/unit.cpp" -o "$work/unit.ii"
        record cc1plus-map "compiler: the C++ front and back end on one file with the standard containers" "$(g++ --version | head -1)" -- \
            "$(g++ -print-prog-name=cc1plus)" -quiet -fpreprocessed -O1 "$work/unit.ii" -o "$work/unit.s"
        ;;
    *)
        echo "record.sh: no trace is called '$name'; there are python-json, sqlite-insert, cc1plus-map" >&2
        exit 2
        ;;
    esac
done
