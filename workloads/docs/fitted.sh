#!/usr/bin/env bash
# Fits a model to each recorded trace, replays both, and prints the table of FITTED.md.
#
#   workloads/docs/fitted.sh target/release/heaplab [BLOCKS] >table.md
set -euo pipefail
heaplab=$(realpath "${1:?usage: fitted.sh PATH-OF-HEAPLAB [BLOCKS]}")
blocks=${2:-6}
traces=$(cd "$(dirname "$0")/../traces" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
head=2
for trace in "$traces"/*.hltrace; do
    name=$(basename "$trace" .hltrace)
    "$heaplab" trace model "$name" -o "$name-fitted.toml" --blocks "$blocks" --format markdown >"$name.md" 2>"$name.log" || {
        echo "fitted.sh: $name: $(tail -1 "$name.log")" >&2
        continue
    }
    grep '^wrote' "$name.log" >&2 || true
    # The lines of the table's head once.
    [ "$head" = 0 ] && sed -i 1,2d "$name.md"
    head=0
    cat "$name.md"
done
