"""The figures of bench.lua by Python's multiprocessing: one JSON line each.

Group by group the same names, work and units as bench.lua beside this file.
BENCH_ONLY picks groups by name, as there (any regular expression works).
BENCH_SLOW=1 adds imap_gen_1m_c1, from a tenth of the items, scaled.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

fork = multiprocessing.get_context("fork")
GROUPS = {}
SCALE = {"us": 1e6, "ns": 1e9, "ms": 1e3}


def group(function):
    GROUPS[function.__name__] = function
    return function


def emit(name, value, unit):
    line = {"peer": "python", "bench": name, "value": value, "unit": unit}
    print(json.dumps(line, separators=(",", ":")), flush=True)


def emit_each(name, n, seconds, unit):
    emit(name, seconds / n * SCALE[unit], unit)


def emit_rate(name, n, seconds, unit):
    emit(name, n / seconds, unit)


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def spawn(target, *args):
    process = fork.Process(target=target, args=args)
    process.start()
    return process


# Jobs

def nothing():
    pass


def square(x):
    return x * x


def polynomial(n):
    total = 0
    for i in range(n):
        total += i + i * i + i * i * i
    return total


def start_and_join(n):
    for _ in range(n):
        spawn(nothing).join()


# Processes and pools

@group
def proc_start_join():
    emit_each("proc_start_join", 200, timed(start_and_join, 200), "us")


def start_and_join_by(make, n):
    def run(times):
        for _ in range(times):
            process = make(target=nothing)
            process.start()
            process.join()

    run(1)
    return timed(run, n)


@group
def proc_start_join_forkserver():
    context = multiprocessing.get_context("forkserver")
    emit_each("proc_start_join_forkserver", 10,
              start_and_join_by(context.Process, 10), "us")


@group
def proc_start_join_spawn():
    context = multiprocessing.get_context("spawn")
    emit_each("proc_start_join_spawn", 5,
              start_and_join_by(context.Process, 5), "us")


@group
def thread_start_join():
    emit_each("thread_start_join", 2000,
              start_and_join_by(threading.Thread, 2000), "us")


def open_and_close_pools(n):
    for _ in range(n):
        workers = fork.Pool(2)
        workers.close()
        workers.join()


@group
def pool_create_close_join():
    seconds = timed(open_and_close_pools, 5)
    emit_each("pool_create_close_join", 5, seconds, "us")


def apply_each(workers, n):
    for i in range(n):
        workers.apply(square, (i,))


@group
def pool():
    with fork.Pool(2) as workers:
        workers.map(square, range(100))
        seconds = timed(workers.map, square, range(100_000))
        emit_rate("pool_map_100k", 100_000, seconds, "tasks/s")
        seconds = timed(workers.map, square, range(10_000), 1)
        emit_rate("pool_map_10k_c1", 10_000, seconds, "tasks/s")
        seconds = timed(apply_each, workers, 1000)
        emit_each("pool_apply", 1000, seconds, "us")
        start = time.perf_counter()
        sum(workers.imap_unordered(square, range(10_000)))
        seconds = time.perf_counter() - start
        emit_rate("pool_imap_unordered_c1", 10_000, seconds, "tasks/s")
        sizes = [1_000_000] * 4
        alone = timed(lambda: [polynomial(n) for n in sizes])
        together = timed(workers.map, polynomial, sizes, 1)
        emit_each("compute_serial", len(sizes), alone, "ms")
        emit("compute_speedup_2p", alone / together, "x")


@group
def executor():
    with ProcessPoolExecutor(2, fork) as workers:
        sum(workers.map(square, range(100)))
        seconds = timed(lambda: sum(workers.map(square, range(10_000))))
        emit_rate("executor_map_c1", 10_000, seconds, "tasks/s")
        seconds = timed(lambda: [future.result() for future in
                                 [workers.submit(square, i)
                                  for i in range(10_000)]])
        emit_rate("executor_submit", 10_000, seconds, "tasks/s")


# Queues

def produce(go, done, queue, message, n):
    go.wait()
    for _ in range(n):
        queue.put(message)
    done.wait()


def queue_rate(queue, message, n):
    go, done = fork.Event(), fork.Event()
    producer = spawn(produce, go, done, queue, message, n)
    start = time.perf_counter()
    go.set()
    for _ in range(n):
        queue.get()
    seconds = time.perf_counter() - start
    done.set()
    producer.join()
    return n / seconds


@group
def queues():
    emit("queue_int", queue_rate(fork.Queue(), 7, 40_000), "msgs/s")
    emit("queue_1k", queue_rate(fork.Queue(), "x" * 1024, 20_000), "msgs/s")
    emit("queue_1m", queue_rate(fork.Queue(), b"x" * (1 << 20), 200), "MB/s")
    emit("simplequeue_int", queue_rate(fork.SimpleQueue(), 7, 40_000),
         "msgs/s")


# Locks and values

def acquire_and_release(lock, n):
    for _ in range(n):
        lock.acquire()
        lock.release()


def increment(value, barrier, n):
    barrier.wait()
    for _ in range(n):
        with value.get_lock():
            value.value += 1


@group
def locks():
    n = 200_000
    for name, lock in (("lock_uncontended", fork.Lock()),
                       ("semaphore_uncontended", fork.Semaphore(1))):
        emit_each(name, n, timed(acquire_and_release, lock, n), "ns")
    value, barrier, n = fork.Value("q", 0), fork.Barrier(3), 40_000
    counters = [spawn(increment, value, barrier, n) for _ in range(2)]
    barrier.wait()
    seconds = timed(lambda: [p.join() for p in counters])
    assert value.value == 2 * n
    emit("value_inc_2p", 2 * n / seconds, "ops/s")


def write_all(array, n):
    for i in range(n):
        array[i] = 1.5


def read_all(array, n):
    for i in range(n):
        array[i]


@group
def arrays():
    n = 1_000_000
    for name, array, count in (
            ("array", fork.Array("d", n), 200_000),
            ("array_raw", fork.Array("d", n, lock=False), n)):
        emit_each(name + "_write", count, timed(write_all, array, count),
                  "ns")
        emit_each(name + "_read", count, timed(read_all, array, count), "ns")


# Managers

def set_all(dictionary, n):
    for i in range(n):
        dictionary[i] = i


def get_all(dictionary, n):
    x = None
    for i in range(n):
        x = dictionary[i]
    return x


def append_all(items, n):
    for i in range(n):
        items.append(i)


@group
def manager():
    n = 3000
    with fork.Manager() as m:
        dictionary, items = m.dict(), m.list()
        emit_rate("manager_dict_set", n, timed(set_all, dictionary, n),
                  "ops/s")
        emit_rate("manager_dict_get", n, timed(get_all, dictionary, n),
                  "ops/s")
        emit_rate("manager_list_append", n, timed(append_all, items, n),
                  "ops/s")


# Round trips

def answer_events(mine, other, n):
    for _ in range(n):
        mine.wait()
        mine.clear()
        other.set()


def call_events(mine, other, n):
    for _ in range(n):
        other.set()
        mine.wait()
        mine.clear()


def take_turns(condition, turn, me, n):
    for _ in range(n):
        with condition:
            while turn.value != me:
                condition.wait()
            turn.value = 1 - me
            condition.notify()


def meet(barrier, n):
    for _ in range(n):
        barrier.wait()


def echo(connection, n):
    for _ in range(n):
        connection.send(connection.recv())


def call_echo(connection, n):
    for _ in range(n):
        connection.send(1)
        connection.recv()


def sink(connection, n):
    for _ in range(n):
        connection.recv_bytes()
        connection.send(1)


def fill_sink(connection, data, n):
    for _ in range(n):
        connection.send_bytes(data)
        connection.recv()


@group
def pipes():
    n = 5000
    mine, theirs = fork.Pipe()
    other = spawn(echo, theirs, n + 1)
    call_echo(mine, 1)
    emit_each("pipe_pingpong", n, timed(call_echo, mine, n), "us")
    other.join()

    data, times = b"x" * (64 << 20), 4
    mine, theirs = fork.Pipe()
    other = spawn(sink, theirs, times + 1)
    fill_sink(mine, data, 1)
    emit_rate("pipe_64m", 64 * times, timed(fill_sink, mine, data, times),
              "MB/s")
    other.join()


@group
def sync():
    n = 1000
    left, right = fork.Event(), fork.Event()
    other = spawn(answer_events, right, left, n + 1)
    call_events(left, right, 1)
    emit_each("event_pingpong", n, timed(call_events, left, right, n), "us")
    other.join()

    condition, turn = fork.Condition(), fork.Value("i", 0, lock=False)
    other = spawn(take_turns, condition, turn, 1, n + 1)
    take_turns(condition, turn, 0, 1)
    emit_each("condition_pingpong", n,
              timed(take_turns, condition, turn, 0, n), "us")
    other.join()

    barrier = fork.Barrier(2)
    other = spawn(meet, barrier, n + 1)
    meet(barrier, 1)
    emit_each("barrier_2p", n, timed(meet, barrier, n), "us")
    other.join()


# A generator of a million

def peak_mb():
    """Peak resident memory of this process; ru_maxrss would carry over the
    peak of whoever started it."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


class Numbers:
    """Counts how many of its n numbers were drawn."""

    def __init__(self, n):
        self.n, self.drawn = n, 0

    def __iter__(self):
        for i in range(self.n):
            self.drawn = i + 1
            yield i


def imap_figures():
    n = 1_000_000
    with fork.Pool(2) as workers:
        base = peak_mb()
        start = time.perf_counter()
        sum(workers.imap(square, Numbers(n), 1000))
        emit_each("imap_gen_1m", 1, time.perf_counter() - start, "ms")
        emit("imap_gen_1m_peak", peak_mb() - base, "MB")

        numbers = Numbers(n)
        results = workers.imap(square, numbers, 1000)
        next(results)
        time.sleep(1)
        emit("imap_drawn_by_idle_consumer", numbers.drawn, "items")
        emit("imap_idle_consumer_peak", peak_mb() - base, "MB")
        sum(results)

        if os.environ.get("BENCH_SLOW"):
            tenth = n // 10
            start = time.perf_counter()
            sum(workers.imap(square, Numbers(tenth)))
            seconds = time.perf_counter() - start
            emit("imap_gen_1m_c1", seconds * n / tenth * 1e3, "ms")


@group
def imap_gen():
    subprocess.run([sys.executable, __file__, "--imap"], check=True)


@group
def heap_200mb():
    heap = [bytearray(1000) for _ in range(200_000)]
    emit_each("proc_start_join_200mb", 20, timed(start_and_join, 20), "us")
    assert len(heap) == 200_000


# Memory that a worker does not share

HEAP = []


def private_mb(_):
    with open("/proc/self/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no Private_Dirty in /proc/self/smaps_rollup")


def read_heap(x):
    item = HEAP[x % len(HEAP)]
    return len([[item[0], "garbage %d" % i] for i in range(10)])


@group
def worker_private():
    """200 MB, at some 130 bytes for a list, its number and its text."""
    HEAP.extend([i, "item %d" % (i % 1000)] for i in range(1_250_000))
    with fork.Pool(2) as workers:
        workers.map(read_heap, range(200_000))
        emit("worker_private_mb", max(workers.map(private_mb, range(8), 1)),
             "MB")
    HEAP.clear()


def main():
    if sys.argv[1:] == ["--imap"]:
        imap_figures()
        return
    only = re.compile(os.environ.get("BENCH_ONLY", ""))
    for name, function in GROUPS.items():
        if only.search(name):
            function()


if __name__ == "__main__":
    main()
