#!/usr/bin/env bash
# Records the traces of this folder again, from Debian's own programs and inputs made here.
#
#   cargo build --release && workloads/traces/record.sh target/release/heaplab [NAME…]
#
# Needs: python3, sqlite3, g++ (Debian: apt-get install python3 sqlite3 g++). Inputs come from inputs.sh with fixed seeds, so a
# trace differs from the committed one only where the program's version does. Provenance is written to PROVENANCE.md.
set -euo pipefail

heaplab=$(realpath "${1:?usage: record.sh PATH-OF-HEAPLAB [NAME…]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/inputs.sh" "$work"
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=(python-json sqlite-insert cc1plus-map)

# record NAME PURPOSE VERSION -- CMD…: one trace and its line of provenance.
record() {
    local name=$1 purpose=$2 version=$3
    shift 4
    echo "recording $name" >&2
    # From inside the folder, so that the stored command line has no path of this machine.
    (cd "$work" && "$heaplab" record -o "$name.hltrace" -- "$@" >"$name.out" 2>"$name.log") || {
        cat "$work/$name.log" >&2
        echo "record.sh: $name failed" >&2
        exit 1
    }
    "$heaplab" trace verify "$work/$name.hltrace" >&2
    mv "$work/$name.hltrace" "$here/$name.hltrace"
    grep -v "^| $name |" "$here/PROVENANCE.md" >"$work/provenance" || true
    printf '| %s | %s | %s | `%s` | %s | %s |\n' "$name" "$purpose" "$version" \
        "$(printf '%s ' "$@" | sed 's/ $//; s/|/\\|/g')" "$(date -u +%F)" \
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
        # PYTHONMALLOC=malloc: every object is a call of malloc; the default would hide small ones in arenas.
        PYTHONMALLOC=malloc PYTHONHASHSEED=0 record python-json "interpreter: parse JSON into objects and drop them (PYTHONMALLOC=malloc)" "$(/usr/bin/python3 --version)" -- \
            /usr/bin/python3 load.py
        ;;
    sqlite-insert)
        record sqlite-insert "database: inserts, index look-ups, deletes, an aggregate" "sqlite3 $(sqlite3 --version | cut -d' ' -f1)" -- \
            sqlite3 ":memory:" ".read load.sql"
        ;;
    cc1plus-map)
        # The driver forks; the compiler proper is what allocates, so it is recorded directly, on preprocessed input.
        record cc1plus-map "compiler: the C++ front and back end on one file with the standard containers" "$(g++ --version | head -1)" -- \
            "$(g++ -print-prog-name=cc1plus)" -quiet -fpreprocessed -O1 unit.ii -o unit.s
        ;;
    *)
        echo "record.sh: no trace is called '$name'; there are python-json, sqlite-insert, cc1plus-map" >&2
        exit 2
        ;;
    esac
done
