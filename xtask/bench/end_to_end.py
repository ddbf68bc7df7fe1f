#!/usr/bin/env python3
"""Side-by-side benchmark of a runtimed-compatible daemon through the real PyPI client.

usage: end_to_end.py --socket PATH [options]
       end_to_end.py --only startup --start CMD

Needs the PyPI client `runtimed` importable (`cargo xtask bench` makes such a venv); the
cases startup, ping and raw work without it. The daemon must already listen on PATH. For
`startup` CMD is a shell command which starts a daemon in the foreground; {sock} and {dir}
in it are replaced by a fresh socket path and a fresh folder.

Prints one line a measure: name, p50, p95, max, unit (ms unless said otherwise), sample
count; indented lines are remarks. With BENCH_FIGURES the measures are also added to the file
it names, a JSON object a line. Exit code: 0 every case ran, 1 a case failed, 2 usage.

cases, in the order they run unless --only gives another one:
{cases}
"""
import argparse
import asyncio
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics as st
import struct
import subprocess
import sys
import tempfile
import time

MAGIC = bytes.fromhex("c0de01ac04")
HERE = os.path.dirname(os.path.abspath(__file__))
NB, REQUEST_TIMEOUT = "python", 170

# name -> (seconds before a single run of the case is given up, one line of help)
CASES = {
    "startup": (240, "8 x start a daemon: time to the first answered ping; PSS of its process tree 2 s later"),
    "ping": (60, "2000 pool pings on one connection, 500 pings each on a new connection"),
    "rss": (300, "PSS before and after a fixed workload (100 edits+executions, 1000 displays, close)"),
    "create": (120, "10 x create_notebook() until the client has a usable notebook"),
    "first": (600, "4 x create_notebook + execute 21*2 until the result, pooled environment waiting"),
    "warm": (600, "first, 6 x with 10 s before each: the time to keep another kernel warm, for a daemon that does"),
    "burst": (400, "6 create_notebook at once, each executes 21*2: time from the common start to each result"),
    "pool": (900, "20 notebooks at once from the pool as it is; then --log: 12 refills by copying, 8 by installing, one by one"),
    "exec": (300, "40 x edit + execute on a warm kernel (expression, silent, print); run-all of 51 cells"),
    "raw": (300, "raw_kernel.py run by --raw-python: a bare ipykernel without any daemon"),
    "edit": (120, "200 edits by client A until client B sees them"),
    "fanout": (200, "20 joined clients on one notebook, one edits (50 x): until the first and until all see it"),
    "interrupt": (300, "20 x interrupt at a random moment of `while True: print(1)`: answer, end, kernel free again"),
    "flood": (400, "print 200,000 lines, then 1000 display() calls; peak RSS of the daemon and of the kernel's shim"),
    "large": (600, "10,000 display() calls, 100 MB printed, 100 MB returned, 64 images of 16 MB; peak RSS as above"),
    "blob": (200, "64 x 1 MiB by PUT_BLOB, then GET over one keep-alive HTTP connection; SHA-256 and a static server for the same"),
    "open": (700, "3 x open_notebook of files with 100, 1000 and 5000 cells until all cells are there"),
}
SYNC = {"startup", "ping", "raw"}


class CaseFailed(Exception):
    pass


# ---- results ----------------------------------------------------------------------------
PENDING = {}


def record(name, xs, unit="ms"):
    """Samples of one measure; runs of a case add up."""
    PENDING.setdefault(name, ([], unit))[0].extend(xs)


def remark(text):
    print(f"   {text}", flush=True)


def report():
    for name, (xs, unit) in PENDING.items():
        if not xs:
            continue
        xs = sorted(xs)
        q = lambda p: xs[min(len(xs) - 1, int(p * len(xs)))]
        if path := os.environ.get("BENCH_FIGURES"):
            with open(path, "a") as f:
                print(json.dumps(dict(name=name, unit=unit, p50=st.median(xs), p95=q(.95), max=xs[-1], n=len(xs))), file=f)
        print(f"{name:32s} p50 {st.median(xs):10.2f}  p95 {q(.95):10.2f}  max {xs[-1]:10.2f} {unit} n={len(xs)}", flush=True)
    PENDING.clear()


def ms(t):
    return (time.perf_counter() - t) * 1e3


# ---- raw protocol -----------------------------------------------------------------------
def frame(b):
    return struct.pack(">I", len(b)) + b


def read_exact(s, n):
    b = bytearray(n)
    view, got = memoryview(b), 0
    while got < n:
        k = s.recv_into(view[got:])
        if not k:
            raise EOFError("connection closed by the daemon")
        got += k
    return bytes(b)


def read_frame(s):
    return read_exact(s, struct.unpack(">I", read_exact(s, 4))[0])


def connect(path, handshake, timeout=30):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    try:
        s.connect(path)
        s.sendall(MAGIC + frame(json.dumps(handshake).encode()))
    except OSError:
        s.close()
        raise
    return s


def rpc(s, obj):
    s.sendall(frame(json.dumps(obj).encode()))
    return json.loads(read_frame(s))


def pool_rpc(path, kind):
    with connect(path, {"channel": "pool"}, 10) as s:
        return rpc(s, {"type": kind})


def pool_return(path, env):
    with connect(path, {"channel": "pool"}, 10) as s:
        return rpc(s, {"type": "return", "env": env})


def daemon_pid(path):
    """The process that called listen() on the socket."""
    with connect(path, {"channel": "pool"}, 10) as s:
        return struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


# ---- processes --------------------------------------------------------------------------
def tree(pid):
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                f = open(f"/proc/{d}/stat").read().rsplit(")", 1)[1].split()
                kids.setdefault(int(f[1]), []).append(int(d))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def pss(pid):
    """MiB; 0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for l in f:
                if l.startswith("Pss:"):
                    return int(l.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


def tree_pss(pid):
    total = sum(pss(q) for q in tree(pid))
    if not total:
        raise CaseFailed(f"no memory figures for process {pid}")
    return total


def same_program(pid):
    """Other processes outside the tree that run the same binary: PSS splits its pages with them."""
    own, out = tree(pid), 0
    try:
        exe = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return 0
    for d in os.listdir("/proc"):
        try:
            out += d.isdigit() and int(d) not in own and os.path.samestat(os.stat(f"/proc/{d}/exe"), exe)
        except OSError:
            pass
    return out


# ---- what a case opens, closed again whatever happens -----------------------------------
class Env:
    def __init__(self, a):
        self.a, self.books, self.joined, self.dirs, self.socks, self.procs = a, [], [], [], [], []
        self.client = None

    def tmpdir(self, where=None):
        d = tempfile.mkdtemp(prefix="rb", dir=where)
        self.dirs.append(d)
        return d

    async def create(self):
        nb = await self.client.create_notebook(runtime=NB)
        self.books.append(nb)
        return nb

    async def open(self, path):
        nb = await self.client.open_notebook(path)
        self.books.append(nb)
        return nb

    async def join(self, notebook_id, label=None):
        nb = await self.client.join_notebook(notebook_id, label)
        self.joined.append(nb)
        return nb

    async def ready(self):
        """A notebook with a running kernel, and a cell in it."""
        nb = await self.create()
        cell = await nb.cells.create("1")
        r = await (await cell.execute()).result(REQUEST_TIMEOUT)
        if not r.success:
            raise CaseFailed("the kernel did not come up")
        return nb, cell

    async def close(self, nb):
        for call, limit in ((nb.stop_runtime, 15), (nb.disconnect, 5)):
            if nb in self.joined and call == nb.stop_runtime:
                continue
            try:
                await asyncio.wait_for(call(), limit)
            except Exception:
                pass  # no kernel, or the daemon is gone
        for l in (self.books, self.joined):
            if nb in l:
                l.remove(nb)

    async def cleanup(self):
        await asyncio.gather(*(self.close(nb) for nb in list(self.joined)))
        await asyncio.gather(*(self.close(nb) for nb in list(self.books)))
        for s in self.socks:
            s.close()
        for p in self.procs:
            stop(p)
        for d in self.dirs:
            shutil.rmtree(d, ignore_errors=True)
        self.dirs, self.socks, self.procs = [], [], []

    async def pool_ready(self, want=1):
        """Waits until `want` pooled environments (or as many as the pool holds) are there."""
        end = time.monotonic() + self.a.pool_wait
        while time.monotonic() < end:
            try:
                uv = (await asyncio.to_thread(pool_rpc, self.a.socket, "status"))["state"]["uv"]
                if uv.get("available", 0) >= min(want, uv.get("pool_size", want)) and not (want > 1 and uv.get("warming")):
                    return
            except (KeyError, TypeError, AttributeError):
                return  # no pool
            await asyncio.sleep(.5)
        remark("the environment pool did not fill up in time")


def stop(p):
    """Ends a process group that this program started."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        if p.poll() is not None:
            return
        try:
            os.killpg(p.pid, sig)
            p.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            pass


async def wait(pred, timeout=60, dt=.0005, what="a change"):
    t = time.perf_counter()
    while time.perf_counter() - t < timeout:
        if pred():
            return
        await asyncio.sleep(dt)
    raise CaseFailed(f"{what} did not arrive within {timeout} s")


def value(r):
    return [o.data.get("text/plain") for o in r.outputs if o.output_type == "execute_result"]


# ---- cases ------------------------------------------------------------------------------
def case_startup(env):
    a = env.a
    for _ in range(8):
        d = tempfile.mkdtemp(prefix="rb", dir=(a.prefix + tempfile.gettempdir()) if a.prefix else None)
        env.dirs.append(d)
        inner = d[len(a.prefix):]  # as the daemon sees it
        t = time.perf_counter()
        p = subprocess.Popen(a.start.replace("{sock}", f"{inner}/s.sock").replace("{dir}", inner), shell=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
        env.procs.append(p)
        while True:
            try:
                s = connect(f"{d}/s.sock", {"channel": "pool"}, 10)
                rpc(s, {"type": "ping"})
                break
            except (OSError, EOFError):
                time.sleep(.001)
                if p.poll() is not None:
                    raise CaseFailed(f"the start command ended with {p.returncode}")
                if time.perf_counter() - t > 30:
                    raise CaseFailed("daemon did not answer within 30 s")
        record("startup_to_ping", [ms(t)])
        time.sleep(2)
        if others := same_program(p.pid):
            raise CaseFailed(f"{others} other process(es) run the same binary, and its pages would be divided by them")
        record("idle_pss_tree", [tree_pss(p.pid)], "MiB")
        try:
            rpc(s, {"type": "shutdown"})
        except (EOFError, OSError):
            pass
        s.close()
        try:
            p.wait(20)
        except subprocess.TimeoutExpired:
            raise CaseFailed("daemon still there 20 s after `shutdown`")
        shutil.rmtree(d, ignore_errors=True)


def case_ping(env):
    with connect(env.a.socket, {"channel": "pool"}, 10) as s:
        for _ in range(2000):
            t = time.perf_counter()
            rpc(s, {"type": "ping"})
            record("ping_same_conn", [ms(t)])
    for _ in range(500):
        t = time.perf_counter()
        s = connect(env.a.socket, {"channel": "pool"}, 10)
        rpc(s, {"type": "ping"})
        s.close()
        record("ping_new_conn", [ms(t)])


async def case_rss(env):
    pid = env.a.pid
    if others := same_program(pid):
        remark(f"{others} other process(es) run the same binary: PSS counts a share of its pages only")
    await env.pool_ready(99)
    count = len(tree(pid))
    record("rss_tree_before", [tree_pss(pid)], "MiB")
    record("rss_daemon_before", [pss(pid)], "MiB")
    nb, cell = await env.ready()
    for i in range(100):
        await cell.set_source(f"print({i})")
        await (await cell.execute()).result(REQUEST_TIMEOUT)
    await cell.set_source("from IPython.display import display, HTML\nfor i in range(1000): display(HTML(f'<b>{i}</b>'))")
    await (await cell.execute()).result(REQUEST_TIMEOUT)
    await env.close(nb)
    end = time.monotonic() + 45  # a daemon may keep what served the notebook for half a minute
    while time.monotonic() < end and len(tree(pid)) > count:
        await asyncio.sleep(.2)
    await env.pool_ready(99)
    await asyncio.sleep(3)
    record("rss_tree_after", [tree_pss(pid)], "MiB")
    record("rss_daemon_after", [pss(pid)], "MiB")


async def case_create(env):
    for _ in range(10):
        t = time.perf_counter()
        nb = await env.create()
        record("create_notebook", [ms(t)])
        await env.close(nb)
        await asyncio.sleep(.3)


async def first_result(env, t):
    nb = await env.create()
    cell = await nb.cells.create("21*2")
    r = await (await cell.execute()).result(REQUEST_TIMEOUT)
    took = ms(t)
    if value(r) != ["42"]:
        raise CaseFailed(f"21*2 gave {value(r)}")
    return nb, took


async def case_first(env):
    for _ in range(4):
        await env.pool_ready()
        nb, took = await first_result(env, time.perf_counter())
        record("create_to_first_result", [took])
        await env.close(nb)


async def case_warm(env):
    # Somebody must have begun to work.
    await first_result(env, time.perf_counter())
    for _ in range(6):
        await env.pool_ready()
        await asyncio.sleep(10)
        nb, took = await first_result(env, time.perf_counter())
        record("create_to_first_result_warm", [took])
        await env.close(nb)


async def case_burst(env):
    n = env.a.burst
    await env.pool_ready(n)
    t = time.perf_counter()
    done = await asyncio.gather(*(first_result(env, t) for _ in range(n)), return_exceptions=True)
    bad = [d for d in done if isinstance(d, BaseException)]
    record(f"burst_{n}_first_result", [d[1] for d in done if d not in bad])
    if bad:
        raise CaseFailed(f"{len(bad)} of {n} failed, first: {type(bad[0]).__name__}: {bad[0]}")
    record(f"burst_{n}_all", [max(d[1] for d in done)])


def built(log, since, how):
    """Milliseconds of each environment that came about in this way, from a byte of the daemon's log on."""
    with open(log, errors="replace") as f:
        f.seek(since)
        lines = [l for l in f if "environment is ready" in l and f'how="{how}"' in l]
    return [float(re.search(r"ms=(\d+)", l).group(1)) for l in lines]


async def case_pool(env):
    n, log = 20, env.a.log
    await env.pool_ready(99)
    await asyncio.sleep(5)  # a daemon may be making its template faster
    await env.pool_ready(99)
    t = time.perf_counter()
    done = await asyncio.gather(*(first_result(env, t) for _ in range(n)), return_exceptions=True)
    bad = [d for d in done if isinstance(d, BaseException)]
    record(f"pool_{n}_first_result", [d[1] for d in done if d not in bad])
    if bad:
        raise CaseFailed(f"{len(bad)} of {n} failed, first: {type(bad[0]).__name__}: {bad[0]}")
    await asyncio.gather(*(env.close(nb) for nb in list(env.books)))
    await env.pool_ready(99)
    if not log:
        return
    await asyncio.sleep(5)
    since = os.path.getsize(log)
    for _ in range(12):
        with connect(env.a.socket, {"channel": "pool"}, 60) as s:
            taken = rpc(s, {"type": "take", "env_type": "uv"})
        await env.pool_ready(99)
        await asyncio.to_thread(pool_return, env.a.socket, taken["env"])
        await asyncio.sleep(.5)
    copied = built(log, since, "copied")
    if "environment is ready" not in open(log, errors="replace").read():
        raise CaseFailed(f"{log} says nothing about environments; start the daemon with RUST_LOG=warn,runtimed_host::pools=info")
    installed = []
    while len(installed) < 8:
        since = os.path.getsize(log)
        await asyncio.to_thread(pool_rpc, env.a.socket, "flush_pool")
        await asyncio.sleep(.5)
        await env.pool_ready(99)
        installed += built(log, since, "installed")
    record("pool_refill_by_copy", copied)
    record("pool_refill_by_install", installed)
    if copied:
        ratio = st.median(installed) / st.median(copied)
        remark(f"installing takes {ratio:.1f} times as long as copying")


async def case_exec(env):
    nb, cell = await env.ready()
    wrong = 0
    for name, src, good in (("exec_expr", "{i}", lambda r, i: value(r) == [str(i)]),
                            ("exec_silent", "x={i}", lambda r, i: not r.outputs),
                            ("exec_print", "print({i})", lambda r, i: r.stdout == f"{i}\n")):
        xs, rt = [], []
        for i in range(40):
            await cell.set_source(src.format(i=i))
            t = time.perf_counter()
            ex = await cell.execute()
            rt.append(ms(t))
            r = await ex.result(REQUEST_TIMEOUT)
            xs.append(ms(t))
            wrong += not (r.success and good(r, i))
        record(name + "_total", xs)
        record(name + "_request", rt)
        record(name + "_total_last10", xs[-10:])
    # run-all of 50 silent cells
    for i in range(50):
        await nb.cells.create(f"y={i}")
    t = time.perf_counter()
    exs = await nb.queue_all()
    await exs[-1].result(REQUEST_TIMEOUT)
    record("queue_all_51_cells", [ms(t)])
    if wrong:
        raise CaseFailed(f"{wrong} of 120 results were wrong")


async def case_edit(env):
    nb1 = await env.create()
    nb2 = await env.join(nb1.notebook_id)
    cell = await nb1.cells.create("x")
    await wait(lambda: cell.id in nb2.cells, what="the new cell")
    other = nb2.cells.get_by_id(cell.id)
    for i in range(200):
        src = f"value = {i}"
        t = time.perf_counter()
        task = asyncio.ensure_future(cell.set_source(src))
        await wait(lambda: other.source == src, dt=.0002, what="the edit")
        record("edit_A_to_B", [ms(t)])
        await task


async def case_fanout(env):
    nb = await env.create()
    cell = await nb.cells.create("x")
    books, refused = [], []
    for _ in range(env.a.fanout):
        try:  # short label: a presence snapshot must fit into 4096 bytes
            books.append(await env.join(nb.notebook_id, "c"))
        except Exception as e:
            refused.append(e)
    n = len(books)
    if not n:
        raise CaseFailed(f"no client could join: {refused[0]}")
    await wait(lambda: all(cell.id in b.cells for b in books), dt=.01, what="the new cell at every client")
    cells = [b.cells.get_by_id(cell.id) for b in books]
    for i in range(50):
        src, left, first = f"value = {i}", list(cells), None
        t = time.perf_counter()
        task = asyncio.ensure_future(cell.set_source(src))
        while left:
            left = [c for c in left if c.source != src]
            if first is None and len(left) < n:
                first = ms(t)
            if left:
                if time.perf_counter() - t > 30:
                    raise CaseFailed(f"{len(left)} of {n} clients did not see the edit within 30 s")
                await asyncio.sleep(.0002)
        record(f"fanout_{n}_first", [first])
        record(f"fanout_{n}_all", [ms(t)])
        await task
    if refused:
        raise CaseFailed(f"only {n} of {env.a.fanout} clients could join: {refused[0]}")


async def case_interrupt(env):
    nb, cell = await env.ready()
    nxt = await nb.cells.create("1+1")
    wrong, moments = 0, random.Random(1)
    for _ in range(20):
        await cell.set_source("while True: print(1)")
        ex = await cell.execute()
        await wait(lambda: ex.status == "running", 30, .002, "the status `running`")
        await asyncio.sleep(moments.random())
        t = time.perf_counter()
        await nb.interrupt()
        request = ms(t)
        await wait(lambda: ex.status == "error", 30, .0005, "the end of the execution")
        record("interrupt_to_end", [ms(t)])
        record("interrupt_request", [request])
        # The kernel gets it when it is idle again.
        r = await (await nxt.execute()).result(60)
        record("interrupt_to_next_result", [ms(t)])
        if value(r) != ["2"]:
            raise CaseFailed("the kernel does not work after the interrupt")
        r = await ex.result(60)
        wrong += r.success or r.error is None or r.error.ename != "KeyboardInterrupt"
    if wrong:
        remark(f"{wrong} of 20 interrupted executions did not report KeyboardInterrupt")


class Peak:
    """Highest RSS of the daemon and of a kernel's shim while something runs, beside what they had before."""

    def __init__(self, env, shim):
        self.pids = {"daemon": env.a.pid, "shim": shim}

    @staticmethod
    def mib(pid, key):
        with open(f"/proc/{pid}/status") as f:
            return next(int(l.split()[1]) / 1024 for l in f if l.startswith(key))

    def begin(self):
        for pid in self.pids.values():
            with open(f"/proc/{pid}/clear_refs", "w") as f:
                f.write("5")  # the peak is the present from here on
        self.before = {name: (self.mib(pid, "VmRSS"), self.cpu(pid)) for name, pid in self.pids.items()}

    @staticmethod
    def cpu(pid):
        with open(f"/proc/{pid}/stat") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def end(self, what):
        for name, pid in self.pids.items():
            before, cpu = self.before[name]
            record(f"{what}_{name}_before", [before], "MiB")
            record(f"{what}_{name}_peak", [self.mib(pid, "VmHWM")], "MiB")
            record(f"{what}_{name}_cpu", [self.cpu(pid) - cpu], "s")


async def shim(nb):
    cell = await nb.cells.create("import os\nos.getppid()")
    return int(value(await (await cell.execute()).result(REQUEST_TIMEOUT))[0])


async def case_flood(env):
    nb, cell = await env.ready()
    keeper = await shim(nb)
    record("shim_pss", [pss(keeper)], "MiB")
    peak = Peak(env, keeper)
    await cell.set_source("for i in range(200000): print(i)")
    peak.begin()
    t = time.perf_counter()
    r = await (await cell.execute()).result(280)
    took = ms(t)
    if r.stdout != "".join(f"{i}\n" for i in range(200000)):
        raise CaseFailed(f"{len(r.stdout)} characters of 200,000 lines, or not the same")
    record("flood_200k_lines", [took])
    peak.end("flood")
    await cell.set_source("from IPython.display import display, HTML\nfor i in range(1000): display(HTML(f'<b>{i}</b>'))")
    t = time.perf_counter()
    r = await (await cell.execute()).result(280)
    took = ms(t)
    if len(r.outputs) != 1000:
        raise CaseFailed(f"{len(r.outputs)} of 1,000 displays")
    record("display_1000", [took])


async def case_large(env):
    info = await asyncio.to_thread(pool_rpc, env.a.socket, "get_daemon_info")
    nb, cell = await env.ready()
    peak = Peak(env, await shim(nb))

    async def run(name, source):
        """Until it is over. Nobody reads the result: that is the client's work."""
        await cell.set_source(source)
        peak.begin()
        t = time.perf_counter()
        ex = await cell.execute()
        # Asking takes the client longer than the daemon needs for a publication.
        await wait(lambda: ex.done, 280, .05, "the end of the execution")
        record(name, [ms(t)])
        peak.end(name)
        if ex.status != "done":
            raise CaseFailed(f"{name} ended with {ex.status}")
        return ex

    def stored(body):
        h = http.client.HTTPConnection("127.0.0.1", info["blob_port"], timeout=60)
        env.socks.append(h)
        h.request("GET", f"/blob/{hashlib.sha256(body).hexdigest()}")
        r = h.getresponse()
        return r.status == 200 and r.read() == body

    ex = await run("display_10k", "from IPython.display import display\nfor i in range(10000): display(i)")
    t = time.perf_counter()
    r = await ex.result(280)
    record("display_10k_read", [ms(t)])
    if [o.data.get("text/plain") for o in r.outputs] != [str(i) for i in range(10000)]:
        raise CaseFailed(f"{len(r.outputs)} of 10,000 displays, or not in order")
    line = "x" * 999_999 + "\n"
    ex = await run("print_100mb", "for _ in range(100): print('x' * 999_999)")
    r = await ex.result(280)
    if r.stdout != line * 100:
        raise CaseFailed(f"{len(r.stdout)} of 100,000,000 printed characters, or not the same")
    del r
    ex = await run("result_100mb", "'x' * 100_000_000")
    if not await asyncio.to_thread(stored, b"'" + b"x" * 100_000_000 + b"'"):
        raise CaseFailed("the string of 100 MB is not in the blob store as it was")
    await run("images_1gb", "import random\nfrom IPython.display import display, Image\n"
              "for i in range(64): display(Image(random.Random(i).randbytes(16 << 20), format='png'))")
    for i in range(64):
        if not await asyncio.to_thread(stored, random.Random(i).randbytes(16 << 20)):
            raise CaseFailed(f"image {i} is not in the blob store as it was")


def blob_transfer(env, notebook_id, port, count=64, size=1 << 20):
    s = connect(env.a.socket, {"channel": "notebook_sync", "notebook_id": notebook_id, "protocol": "v4",
                               "typed_bootstrap": True}, 60)
    env.socks.append(s)
    boot = read_frame(s)
    info = json.loads(boot[1:] if boot[:1] == b"\x07" else boot)
    if info.get("error"):
        raise CaseFailed(info["error"])
    todo = []
    for i in range(count):  # random: not compressible, never seen before
        body = os.urandom(size)
        digest = hashlib.sha256(body).hexdigest()
        head = json.dumps({"op": "put", "id": f"b{i}", "media_type": "application/octet-stream", "size": size,
                           "sha256": digest}).encode()
        todo.append((f"b{i}", digest, frame(b"\x08" + struct.pack(">I", len(head)) + head + body)))
    start, again = time.perf_counter(), 0
    for ident, digest, data in todo:
        t = time.perf_counter()
        while True:
            s.sendall(data)
            while True:  # documents and status frames may come in between
                f = read_frame(s)
                if f[0] == 2:
                    answer = json.loads(f[1:])
                    if answer.get("id") == ident:
                        break
            if (answer.get("reason") or {}).get("kind") == "too_many_in_flight" and again < 200:
                again += 1  # the previous upload is answered, its slot not free yet
                time.sleep(.0005)
                continue
            break
        if answer.get("result") != "blob_stored" or answer.get("hash") != digest:
            raise CaseFailed(f"PUT_BLOB was answered with {answer}")
        record("blob_put_1MiB", [ms(t)])
    if again:
        remark(f"{again} frames refused (too_many_in_flight) though the previous one was answered; sent again")
    record("blob_put_rate", [count * size / 1e6 / (time.perf_counter() - start)], "MB/s")
    bodies = [data[-size:] for _, _, data in todo]
    t = time.perf_counter()
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    record("raw_sha256_rate", [count * size / 1e6 / (time.perf_counter() - t)], "MB/s")
    folder = env.tmpdir()
    for digest, body in zip(digests, bodies):
        with open(os.path.join(folder, digest), "wb") as f:
            f.write(body)
    static = subprocess.Popen([sys.executable, "-c", STATIC, folder], stdout=subprocess.PIPE, text=True, start_new_session=True)
    env.procs.append(static)
    # The daemon in between, so that a machine that gets slower slows all of them down.
    beside = int(static.stdout.readline())
    served, own = [], []
    for _ in range(3):
        served += fetch(env, beside, "", digests)
        own += fetch(env, port, "blob/", digests)
    record("blob_get_1MiB", own)
    rate = lambda took: len(took) * size / 1e3 / sum(took)
    record("blob_get_rate", [rate(own)], "MB/s")
    record("raw_static_rate", [rate(served)], "MB/s")


# A plain server of the files in a folder, on a port which it prints.
STATIC = """
import functools, http.server, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
print(s.server_port, flush=True)
s.serve_forever()
"""


def fetch(env, port, under, digests):
    """Milliseconds of each GET over one connection; what comes back is looked at."""
    h = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    env.socks.append(h)
    h.connect()
    used, took = set(), []
    for digest in digests:
        t = time.perf_counter()
        h.request("GET", f"/{under}{digest}")
        r = h.getresponse()
        used.add(id(h.sock))
        body = r.read()
        took.append(ms(t))
        if r.status != 200:
            raise CaseFailed(f"GET /{under}... was answered with {r.status}")
        if hashlib.sha256(body).hexdigest() != digest:
            raise CaseFailed("a blob came back changed")
    if len(used) > 1:
        remark("the HTTP server closed the connection between requests")
    return took


async def case_blob(env):
    info = await asyncio.to_thread(pool_rpc, env.a.socket, "get_daemon_info")
    if not info.get("blob_port"):
        raise CaseFailed("the daemon reports no blob_port")
    nb = await env.create()
    try:
        await nb.stop_runtime()
    except Exception:
        pass
    await asyncio.sleep(2)
    await env.pool_ready(99)
    await asyncio.to_thread(blob_transfer, env, nb.notebook_id, info["blob_port"])


def make_nb(n):
    return dict(nbformat=4, nbformat_minor=5, metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
                cells=[dict(cell_type="code", id=f"c{i:05d}", metadata={}, execution_count=None, outputs=[], source=f"# cell {i}\nx_{i} = {i}\n" * 5) for i in range(n)])


async def case_open(env):
    for n in env.a.sizes:
        for k in range(3):
            p = os.path.join(env.tmpdir(env.a.shared), f"n{n}_{k}.ipynb")
            with open(p, "w") as f:
                json.dump(make_nb(n), f)
            t = time.perf_counter()
            nb = await env.open(p)
            await wait(lambda: len(nb.cells) == n, 300, .005, f"cell {n}")
            record(f"open_{n}_cells", [ms(t)])
            await env.close(nb)


def case_raw(env):
    p = subprocess.Popen([env.a.raw_python, os.path.join(HERE, "raw_kernel.py")], start_new_session=True)
    env.procs.append(p)
    if p.wait(280):
        raise CaseFailed(f"raw_kernel.py ended with {p.returncode}")


# ---- main -------------------------------------------------------------------------------
def arguments():
    cases = "\n".join(f"  {n:10s} {h}" for n, (_, h) in CASES.items())
    ap = argparse.ArgumentParser(description=__doc__.replace("{cases}", cases), usage=argparse.SUPPRESS,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--socket", help="the daemon's socket")
    ap.add_argument("--only", metavar="a,b", help="cases to run (default: all; startup, raw only with --start, --raw-python)")
    ap.add_argument("--runs", type=int, default=1, metavar="N", help="repeat every case N times, samples added up (1)")
    ap.add_argument("--timeout", type=float, metavar="S", help="seconds for one run of a case, instead of its own limit")
    ap.add_argument("--start", metavar="CMD", help="startup: shell command with {sock} and {dir}")
    ap.add_argument("--prefix", default="", help="startup: a chroot's root, put before the paths the daemon sees")
    ap.add_argument("--shared", metavar="DIR", help="open: folder seen alike by daemon and client (the temp folder)")
    ap.add_argument("--sizes", default="100,1000,5000", help="open: cells per file (100,1000,5000)")
    ap.add_argument("--pid", type=int, help="rss: the daemon's process (default: the owner of the socket)")
    ap.add_argument("--burst", type=int, default=6, metavar="N", help="burst: notebooks at once (6)")
    ap.add_argument("--fanout", type=int, default=20, metavar="N", help="fanout: joined clients (20)")
    ap.add_argument("--pool-wait", type=float, default=120, metavar="S", help="wait at most so long for pooled environments (120)")
    ap.add_argument("--log", metavar="FILE", help="pool: the daemon's log")
    ap.add_argument("--raw-python", metavar="FILE", help="raw: an interpreter with ipykernel and jupyter_client")
    a = ap.parse_args()
    a.todo = a.only.split(",") if a.only else [c for c in CASES if {"startup": a.start, "raw": a.raw_python}.get(c, True)]
    if unknown := [c for c in a.todo if c not in CASES]:
        ap.error(f"no such case: {', '.join(unknown)} (there are {', '.join(CASES)})")
    try:
        a.sizes = [int(n) for n in a.sizes.split(",")]
    except ValueError:
        ap.error("--sizes wants numbers, separated by commas")
    if min(a.runs, a.burst, a.fanout, *a.sizes) < 1:
        ap.error("--runs, --burst, --fanout and --sizes start at 1")
    if "startup" in a.todo and not a.start:
        ap.error("case startup needs --start")
    if "raw" in a.todo and not a.raw_python:
        ap.error("case raw needs --raw-python")
    if set(a.todo) - {"startup", "raw"}:
        if not a.socket:
            ap.error("--socket is needed")
        try:
            pool_rpc(a.socket, "ping")
        except (OSError, EOFError, ValueError) as e:
            ap.error(f"no daemon answers on {a.socket}: {e}")
        a.pid = a.pid or daemon_pid(a.socket)
    if set(a.todo) - SYNC:
        os.environ["RUNTIMED_SOCKET_PATH"] = a.socket
        try:
            import runtimed  # noqa: F401
        except ImportError as e:
            ap.error(f"the client `runtimed` cannot be imported ({e}); `cargo xtask bench` makes a venv that has it")
    return a


async def run_case(name, env):
    limit = env.a.timeout or CASES[name][0]
    fn = globals()["case_" + name]
    try:
        for _ in range(env.a.runs):
            try:
                await asyncio.wait_for(asyncio.to_thread(fn, env) if name in SYNC else fn(env), limit)
            except asyncio.TimeoutError:
                raise CaseFailed(f"not finished after {limit:.0f} s") from None
            finally:
                await asyncio.wait_for(env.cleanup(), 60)
    except Exception as e:
        why = str(e) if isinstance(e, CaseFailed) else f"{type(e).__name__}: {e}"
        report()
        print(f"{name:32s} FAILED {why}", flush=True)
        return False
    report()
    return True


async def main(a):
    env, good = Env(a), True
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, me.cancel)
    head = dict(cores=os.cpu_count(), load=round(os.getloadavg()[0], 2), python=sys.version.split()[0])
    bracket = a.socket and "rss" in a.todo
    if a.socket and set(a.todo) - {"startup", "raw"}:
        try:
            head["daemon"] = pool_rpc(a.socket, "get_daemon_info").get("daemon_version")
        except (OSError, EOFError, ValueError):
            head["daemon"] = "?"
    print("# " + "  ".join(f"{k} {v}" for k, v in head.items()), flush=True)
    try:
        if bracket:
            record("rss_run_start_tree", [tree_pss(a.pid)], "MiB")
            report()
        for name in a.todo:
            if name not in SYNC and env.client is None:
                import runtimed
                env.client = runtimed.Client(socket_path=a.socket)
            good &= await run_case(name, env)
        if bracket:
            await asyncio.sleep(3)
            await env.pool_ready(99)
            record("rss_run_end_tree", [tree_pss(a.pid)], "MiB")
            report()
    except asyncio.CancelledError:
        print("interrupted", file=sys.stderr)
        await env.cleanup()
        good = False
    except CaseFailed as e:
        print(f"{'rss':32s} FAILED {e}", flush=True)
        good = False
    return 0 if good else 1


if __name__ == "__main__":
    code, loop = 1, asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(main(arguments()))
    except SystemExit as e:
        code = e.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The client may crash while the interpreter shuts down, and threads may still wait.
        os._exit(code if isinstance(code, int) else 1)
