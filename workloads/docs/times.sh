#!/bin/sh
# Times for RANKING.md, FITTED.md and SUITES.md. Needs the binary and, for FITTED.md, the fitted models; the tables are written from what
# comes back.
#
#     workloads/docs/times.sh models HEAPLAB OUT              # anywhere: fits OUT/models, some minutes
#     workloads/docs/times.sh measure HEAPLAB OUT PIECE…      # peaks, counts of fitted models: may have company (mimalloc's peaks not)
#     workloads/docs/times.sh measure HEAPLAB OUT PIECE…      # nothing else running: a round of ranking, fitted, suites
#     workloads/docs/times.sh write OUT                       # in the repository: the tables, from all rounds
#
# Machines that others use too give half of their speed for seconds at a time, and more for minutes. So times are the least of many short
# runs, spread over rounds: each `measure` adds a round to what is there, and each helps. `noise` in FITTED.md, the
# same model under another name, says how near a time is to itself. A round takes one to two minutes.
#
# SUBJECTS are those of ranking and fitted. Figures of others stay in the tables. suites compares profiles of all its subjects and always
# takes the four of the table. The texts say where and when: they are to be changed by hand.
set -eu
what=${1:-}
here=$(cd "$(dirname "$0")" && pwd)
SUBJECTS=${SUBJECTS:-system,jemalloc,mimalloc,spanalloc}

models() {
    mkdir -p "$2/models"
    for trace in "$here"/../traces/*.hltrace; do
        name=$(basename "$trace" .hltrace)
        "$1" trace model "$name" -o "$2/models/$name-fitted.toml" --no-check 2> "$2/models/$name.log"
        sed "s/^name = \"$name-fitted\"/name = \"$name-fitted-twin\"/" "$2/models/$name-fitted.toml" > "$2/models/$name-fitted-twin.toml"
    done
}

# The folder of a round that is not there yet.
round() {
    number=1
    while [ -e "$1-$number" ]; do number=$((number + 1)); done
    echo "$1-$number"
}

measure() {
    heaplab=$1 out=$2
    shift 2
    for piece in "$@"; do
        begin=$(date +%s)
        folder=$(round "$out/$piece")
        mkdir -p "$folder"
        run() { "$heaplab" run --quiet --no-report --seed 1 "$@" > /dev/null; }
        speed() {
            name=$1
            shift
            run --measure speed --out "$folder/$name" "$@"
        }
        case $piece in
        peaks | counts)
            rm -r "$folder"
            folder=$out/$piece
            rm -rf "$folder"
            measure=$piece
            [ "$piece" = counts ] || measure=memory
            set -- --subject "$SUBJECTS" --measure "$measure" --blocks 1 --out "$folder"
            for model in "$out"/models/*-fitted.toml; do
                set -- "$@" "$(basename "$model" -fitted.toml)" "$model"
            done
            run "$@"
            ;;
        ranking)
            speed a --subject "$SUBJECTS" --blocks 2 alloc-test cache-scratch cache-thrash glibc-simple glibc-thread larson mleak tiny-churn \
                xmalloc sh6bench sh8bench bimodal checkerboard fragmenter ratchet robson sawtooth survivors
            speed b --subject "$SUBJECTS" --blocks 2 --touch page mstress rptest
            speed c --subject "$SUBJECTS" --blocks 1 --touch page malloc-large
            ;;
        fitted)
            # A trace and its model by turns: what a slow second takes, it takes from both.
            for model in "$out"/models/*-fitted.toml; do
                name=$(basename "$model" -fitted.toml)
                speed "$name" --subject "$SUBJECTS" --blocks 3 "$name" "$model" "$out/models/$name-fitted-twin.toml"
            done
            ;;
        suites) speed full --suite full --scale 0.3 --blocks 3 ;;
        *)
            rmdir "$folder"
            echo "times.sh: no piece is called '$piece'; there are ranking, fitted, suites, peaks, counts" >&2
            exit 2
            ;;
        esac
        echo "$folder: $(($(date +%s) - begin)) s"
    done
}

write() {
    set -- "$1" "$1"/ranking-*/*/result.json
    [ ! -e "$2" ] || (shift && "$here/ranking.py" "$@")
    [ ! -e "$1/models" ] || "$here/fitted.py" "$1"
    set -- "$1" "$1"/suites-*/*/result.json
    [ ! -e "$2" ] || (shift && echo "for SUITES.md: cargo run --release -p heaplab-workloads --example suite_data -- $* MEMORY/result.json")
}

case $what in
models | measure | write)
    shift
    "$what" "$@"
    ;;
*)
    sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
