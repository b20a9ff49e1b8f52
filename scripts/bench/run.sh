#!/bin/sh
# Runs the benchmark of mplua beside Python's and the machine's own limits,
# turn by turn, and prints one table of medians.
#
#   scripts/bench/run.sh [rounds]        5 rounds unless given here or in
#                                        ROUNDS
#   MPLUA       the interpreter          (build/mplua)
#   PYTHON      Python's                 (python3)
#   CC          the C compiler           (cc)
#   BENCH_ONLY  groups to run, by name, divided by "|"        (all)
#   BENCH_SLOW  empty: without Python's imap of chunk size 1  (1)
#   BENCH_OUT   where results.jsonl and the built limits go   (build/bench)
#
# Python is left out, with a note, where there is none; the limits where no
# C compiler or no Lua headers are. The figures mean something on a machine
# that has nothing else to do.
set -u

cd "$(dirname "$0")/../.." || exit 1
here=scripts/bench
rounds=${1:-${ROUNDS:-5}}
MPLUA=${MPLUA:-build/mplua}
PYTHON=${PYTHON:-python3}
out=${BENCH_OUT:-build/bench}
results=$out/results.jsonl
only=${BENCH_ONLY:-}
BENCH_ONLY=$only
BENCH_SLOW=${BENCH_SLOW-1}
export BENCH_ONLY BENCH_SLOW
failed=0

# Rows run once more on one CPU. Across two, a round trip is mostly the price
# of waking the other one; on one, it is that of the code.
one_core_groups="pool queues pipes sync manager"
one_core_rows='pool_apply|pool_map_10k_c1|pool_imap_unordered_c1'
one_core_rows="$one_core_rows|queue_int|pipe_pingpong"
one_core_rows="$one_core_rows|manager_dict_set|manager_dict_get"
one_core_rows="$one_core_rows|event_pingpong|condition_pingpong|barrier_2p"

note() {
    echo "bench: $*" >&2
}

fail() {
    note "$*"
    exit 1
}

build_limits() {
    cc=$(command -v "${CC:-cc}") || {
        note "no C compiler: without the limits"
        return 1
    }
    lua=$(pkg-config --cflags --libs lua5.4 2>/dev/null ||
        echo -I/usr/include/lua5.4 -llua5.4)
    # shellcheck disable=SC2086  # $lua is a list of options
    "$cc" -std=c11 -D_GNU_SOURCE -O2 -o "$out/limits" "$here/limits.c" \
        $lua -lm -pthread 2>"$out/limits.err" || {
        note "limits.c cannot be built ($out/limits.err): without the limits"
        return 1
    }
}

# Runs "$@" for a minute at most.
bounded() {
    if command -v timeout >/dev/null; then
        timeout 60 "$@"
    else
        "$@"
    fi
}

# run PEER [PREFIX...]: one peer's lines.
run() {
    peer=$1
    shift
    case $peer in
        mplua) bounded "$@" "$MPLUA" "$here/bench.lua" ;;
        python) bounded "$@" "$PYTHON" "$here/python_twin.py" ;;
        limit) bounded "$@" "$out/limits" ;;
    esac
}

# Tells of a run that did not end well; ours makes the whole one fail.
report_failure() {
    note "round $round: $1 failed"
    if [ "$1" = mplua ]; then
        failed=1
    fi
}

# The groups to run on one CPU, as a BENCH_ONLY; empty when none is wanted.
one_core_only() {
    list=
    for group in $one_core_groups; do
        if echo "$group" | grep -Eq -- "${only:-.}"; then
            list="$list${list:+|}^$group\$"
        fi
    done
    echo "$list"
}

keep_one_core_rows() {
    sed -nE "s/\"bench\":\"($one_core_rows)\"/\"bench\":\"\\1_1core\"/p"
}

[ -x "$MPLUA" ] || fail "no $MPLUA: run make first, or set MPLUA"
case $rounds in
    '' | *[!0-9]* | 0) fail "rounds: a positive number expected: '$rounds'" ;;
esac
mkdir -p "$out" || exit 1
: >"$results" || exit 1

peers=mplua
if "$PYTHON" -c 'import multiprocessing' 2>/dev/null; then
    peers="$peers python"
else
    note "no $PYTHON: without Python"
fi
limits=
if build_limits; then
    limits=limit
fi
narrow=$(one_core_only)
cpu=$(sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' \
    /proc/self/status)
if [ -n "$narrow" ] && ! command -v taskset >/dev/null; then
    note "no taskset: without the rows of one CPU"
    narrow=
fi
read -r load _ </proc/loadavg
note "load of the machine before the run: $load"

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    note "round $round of $rounds"
    for peer in $peers $limits; do
        run "$peer" >>"$results" || report_failure "$peer"
    done
    [ -n "$narrow" ] || continue
    BENCH_ONLY=$narrow
    for peer in $peers; do
        run "$peer" taskset -c "$cpu" >"$out/one_core.jsonl" ||
            report_failure "$peer"
        keep_one_core_rows <"$out/one_core.jsonl" >>"$results"
    done
    BENCH_ONLY=$only
done

"$MPLUA" "$here/report.lua" "$results" || exit 1
exit "$failed"
