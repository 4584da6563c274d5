#!/usr/bin/env bash
# Makes VALIDATION.md again: predicted against actual peak memory of real programs.
#
#   cargo build --release && harness/docs/validate.sh target/release/heaplab
#
# Needs python3, sqlite3 and g++ (Debian: apt-get install python3 sqlite3 g++).
set -euo pipefail
heaplab=$(realpath "${1:?usage: validate.sh PATH-OF-HEAPLAB}")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../../workloads/traces/inputs.sh" "$work"

# table TITLE -- CMD…: one program's table.
table() {
    local title=$1
    shift 2
    printf '\n## %s\n\n```\n' "$title"
    (cd "$work" && "$heaplab" --color never validate --runs 5 -- "$@" 2>/dev/null)
    printf '```\n'
}

{
    cat <<'TEXT'
# Does the replay predict the program?

`heaplab validate` records a program once, replays the recording on every subject (lockstep, one byte touched per page), runs the
program itself on every subject five times, and compares the peak of heap memory. *Spread* is the program's own, from run
to run. Made by `harness/docs/validate.sh target/release/heaplab`; METHODOLOGY.md defines the figures.

cc1plus is predicted too large: it allocates tables of which it never touches all pages, while the replay touches one byte of each. A
recording does not see which pages a program writes.
TEXT
    export PYTHONMALLOC=malloc PYTHONHASHSEED=0
    table "python3 with PYTHONMALLOC=malloc: JSON parsed into objects" -- /usr/bin/python3 load.py
    unset PYTHONMALLOC PYTHONHASHSEED
    table "sqlite3: inserts, look-ups, deletes" -- sqlite3 :memory: ".read load.sql"
    table "cc1plus: one C++ file" -- "$(g++ -print-prog-name=cc1plus)" -quiet -fpreprocessed -O1 unit.ii -o unit.s
} >"$work/VALIDATION.md"
mv "$work/VALIDATION.md" "$here/VALIDATION.md"
