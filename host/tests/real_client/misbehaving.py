"""Cells go on, whatever a plugin does.

usage: misbehaving.py FOLDER [RUNS [MODE ...]]

FOLDER is that of the plugin `misbehaving`, whose pool is filled and emptied all the time. For each mode RUNS cells
(10) run while the plugin behaves, and as many while it does not. Every result must be right; a table of median and
95th percentile in milliseconds is printed. Modes: plugin-api/testkit/misbehaving/src/lib.rs.
"""
import asyncio
import json
import os
import statistics
import struct
import sys
import time

from support import LIMIT, run, start, until, value

# Each kind of deed once, where it hurts most.
MODES = (
    "panic:plan panic:create panic:verify destructor:create error:create hang:create block:create slow:create "
    "exit:create abort:create segfault:create overflow:create threads:create memory:create print:create log:create "
    "spin:create orphan:create huge:plan huge:create random-key:plan bad-key:plan progress:create half:create "
    "late:create"
).split()
# Pause between two requests to empty the pools.
PAUSE = 0.1


async def main(client):
    folder, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
    notebook = await client.create_notebook()
    cell = await notebook.cells.create("0")
    assert value(await run(cell)) == "0"
    emptying = asyncio.create_task(keep_emptying())
    print(f"{'mode':18s} {'good p50':>9s} {'p95':>7s} {'bad p50':>9s} {'p95':>7s} {'ratio':>6s} {'p95':>5s}  deeds", flush=True)
    for mode in sys.argv[3:] or MODES:
        await behave(folder)
        good = await measured(cell, runs)
        before = deeds(folder, mode)
        order(folder, mode)
        await until(lambda: deeds(folder, mode) > before, f"{mode} happens")
        bad = await measured(cell, runs)
        done = deeds(folder, mode) - before
        (g50, g95), (b50, b95) = good, bad
        print(f"{mode:18s} {g50:9.1f} {g95:7.1f} {b50:9.1f} {b95:7.1f} {b50 / g50:6.2f} {b95 / g95:5.2f}  {done}", flush=True)
    await behave(folder)
    emptying.cancel()


async def keep_emptying():
    """Has the pools built anew all the time, so that the plugin always has something to do."""
    while True:
        assert (await ask("flush_pool"))["type"] == "flushed"
        await asyncio.sleep(PAUSE)


async def behave(folder):
    """Tells the plugin to behave, and waits until its pool is full."""
    order(folder, "")
    end = time.monotonic() + LIMIT
    while not await pool_is_well():
        assert time.monotonic() < end, "the plugin never works again"
        rows = (await ask("list_plugins"))["plugins"]
        if any(row["id"] == "misbehaving" and row["status"] == "failed" for row in rows):
            # It died so often that it is left alone, until the user says that it has been repaired.
            await ask("set_plugin_enabled", id="misbehaving", enabled=True)
        await asyncio.sleep(0.02)


async def ask(request, **parts):
    """The daemon's reply to a request of the pool channel."""
    reader, writer = await asyncio.open_unix_connection(os.environ["RUNTIMED_SOCKET_PATH"])
    bodies = [json.dumps({"channel": "pool"}).encode(), json.dumps({"type": request, **parts}).encode()]
    writer.write(bytes.fromhex("c0de01ac04") + b"".join(struct.pack(">I", len(body)) + body for body in bodies))
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    reply = json.loads(await reader.readexactly(length))
    writer.close()
    return reply


async def measured(cell, runs):
    """Median and 95th percentile of the time from asking for a cell to its result."""
    times = []
    for number in range(runs):
        await cell.set_source(f"{number} * 7")
        begin = time.perf_counter()
        result = await run(cell)
        times.append((time.perf_counter() - begin) * 1000)
        assert result.success and value(result) == str(number * 7)
    times.sort()
    return statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.95))]


def order(folder, mode):
    """Tells the plugin what to do."""
    with open(os.path.join(folder, "misbehave"), "w") as f:
        f.write(mode)


def deeds(folder, mode):
    """How often the plugin has done it."""
    try:
        with open(os.path.join(folder, "done")) as f:
            return f.read().splitlines().count(mode)
    except FileNotFoundError:
        return 0


async def pool_is_well():
    pool = (await ask("status"))["state"].get("misbehaving", {})
    return pool.get("available") == 1 and not pool.get("error")


start(main)
