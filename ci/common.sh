# Sourced by the scripts, with their arguments: `--help` prints the comment at the head of the script.
case "${1:-}" in
-h | --help)
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"
    exit 0
    ;;
esac

# path_of_heaplab [PATH]: its absolute path, or a line that says what is missing.
path_of_heaplab() {
    if [ -z "${1:-}" ]; then
        echo "$(basename "$0"): the path of heaplab is missing, as target/release/heaplab; --help says more" >&2
        return 2
    fi
    if [ ! -f "$1" ] || [ ! -x "$1" ]; then
        echo "$(basename "$0"): '$1' is no program; cargo build --release makes target/release/heaplab" >&2
        return 2
    fi
    realpath -- "$1"
}
