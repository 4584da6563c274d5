#!/bin/sh
# Times for RANKING.md, FITTED.md and SUITES.md, on a machine that is idle for two or three minutes. The machine needs the binary and,
# for FITTED.md, the fitted models; the tables are written from what comes back.
#
#     workloads/docs/times.sh models HEAPLAB OUT                       # anywhere: fits OUT/models, a minute and a half
#     workloads/docs/times.sh measure HEAPLAB OUT [PIECE…]             # idle: ranking, fitted, suites; all of them without a name
#     workloads/docs/times.sh write OUT                                # in the repository: the tables
#
# SUBJECTS are those of ranking and fitted (default: system,spanalloc; for fitted one is enough). Figures of others stay in the tables:
# a ratio is to the system's time of the same run. suites compares profiles of all its subjects and always takes the four of the table:
# two minutes. The texts say where and when: they are to be changed by hand.
set -eu
what=${1:-}
here=$(cd "$(dirname "$0")" && pwd)
SUBJECTS=${SUBJECTS:-system,spanalloc}
BLOCKS=${BLOCKS:-4}

models() {
    mkdir -p "$2/models"
    for trace in "$here"/../traces/*.hltrace; do
        name=$(basename "$trace" .hltrace)
        "$1" trace model "$name" -o "$2/models/$name-fitted.toml" --no-check --quiet
        sed "s/^name = \"$name-fitted\"/name = \"$name-fitted-twin\"/" "$2/models/$name-fitted.toml" > "$2/models/$name-fitted-twin.toml"
    done
}

measure() {
    heaplab=$1 out=$2
    shift 2
    [ $# -gt 0 ] || set -- ranking fitted suites
    speed() {
        folder=$1
        shift
        rm -rf "$out/$folder"
        begin=$(date +%s)
        "$heaplab" run --quiet --no-report --seed 1 --measure speed --out "$out/$folder" "$@" > /dev/null
        echo "$folder: $(($(date +%s) - begin)) s"
    }
    for piece in "$@"; do
        case $piece in
        ranking)
            speed ranking-a --subject "$SUBJECTS" --blocks "$BLOCKS" alloc-test cache-scratch cache-thrash glibc-simple glibc-thread larson \
                mleak tiny-churn xmalloc sh6bench sh8bench bimodal checkerboard fragmenter ratchet robson sawtooth survivors
            speed ranking-b --subject "$SUBJECTS" --blocks "$BLOCKS" --touch page mstress rptest
            speed ranking-c --subject "$SUBJECTS" --blocks 2 --touch page malloc-large
            ;;
        fitted)
            set --
            for model in "$out"/models/*-fitted.toml; do
                name=$(basename "$model" -fitted.toml)
                set -- "$@" "$name" "$model" "$out/models/$name-fitted-twin.toml"
            done
            speed fitted --subject "$SUBJECTS" --blocks 3 "$@"
            ;;
        suites) speed suites --suite full --scale 0.3 --blocks 4 ;;
        *)
            echo "times.sh: no piece is called '$piece'; there are ranking, fitted, suites" >&2
            exit 2
            ;;
        esac
    done
}

write() {
    for result in "$1"/ranking-?/result.json; do
        [ ! -e "$result" ] || "$here/ranking.py" "$result"
    done
    [ ! -e "$1/fitted/result.json" ] || "$here/fitted.py" --results "$1/fitted/result.json"
    [ ! -e "$1/suites/result.json" ] || echo "for SUITES.md: cargo run -p heaplab-workloads --example suite_data -- $1/suites/result.json MEMORY/result.json"
}

case $what in
models | measure | write)
    shift
    "$what" "$@"
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
