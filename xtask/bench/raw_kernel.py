#!/usr/bin/env python3
"""Physical limit of an execute round trip: a bare ipykernel through jupyter_client, no daemon.

usage: raw_kernel.py [--runs N] [--timeout S]

Needs ipykernel and jupyter_client; use the interpreter the daemon's kernels use. The same
code is executed as in end_to_end.py (exec, flood, interrupt). With BENCH_FIGURES the figures
are also added to the file it names, a JSON object a line. Exit code: 0, 1 if a measure failed,
2 usage.
"""
import argparse
import json
import os
import queue
import shutil
import statistics as st
import sys
import tempfile
import time

def keep(name, xs):
    if path := os.environ.get("BENCH_FIGURES"):
        xs = sorted(xs)
        figure = dict(name=name, unit="ms", p50=st.median(xs), p95=xs[min(len(xs) - 1, int(.95 * len(xs)))], max=xs[-1], n=len(xs))
        with open(path, "a") as f:
            print(json.dumps(figure), file=f)


class Kernel:
    def __init__(self, folder, timeout):
        from jupyter_client.manager import KernelManager
        self.timeout = timeout
        self.km = KernelManager(transport="ipc", connection_file=os.path.join(folder, "k.json"))
        t = time.perf_counter()
        self.km.start_kernel()
        self.kc = None
        try:
            self.kc = self.km.client()
            self.kc.start_channels()
            self.kc.wait_for_ready(timeout=timeout)
        except BaseException:
            self.close()
            raise
        self.cold = (time.perf_counter() - t) * 1e3

    def run(self, code, interrupt_after=None):
        """ms until both the reply and the idle status are there (counted from the interrupt)."""
        t = time.perf_counter()
        mid = self.kc.execute(code)
        end = time.monotonic() + self.timeout
        idle = rep = False
        due = None if interrupt_after is None else t + interrupt_after
        while not (idle and rep):
            if time.monotonic() > end:
                raise queue.Empty
            if due and time.perf_counter() >= due:
                t, due = time.perf_counter(), None
                self.km.interrupt_kernel()
            if not idle:
                try:
                    m = self.kc.get_iopub_msg(timeout=.02 if due else self.timeout)
                except queue.Empty:
                    if due:
                        continue
                    raise
                if m["parent_header"].get("msg_id") == mid:
                    idle = m["msg_type"] == "status" and m["content"]["execution_state"] == "idle"
            if not rep and (idle or self.kc.shell_channel.msg_ready()):
                rep = self.kc.get_shell_msg(timeout=self.timeout)["parent_header"].get("msg_id") == mid
        return (time.perf_counter() - t) * 1e3

    def close(self):
        if self.kc is not None:
            self.kc.stop_channels()
        self.km.shutdown_kernel(now=True)


def measure(a):
    cold, xs = [], {}
    for _ in range(a.runs):
        folder = tempfile.mkdtemp(prefix="rk")
        try:
            k = Kernel(folder, a.timeout)
            try:
                cold.append(k.cold)
                k.run("1")
                for name, src in (("expr", "{i}"), ("silent", "x={i}"), ("print", "print({i})")):
                    xs.setdefault(name, []).extend(k.run(src.format(i=i)) for i in range(60))
                xs.setdefault("51_silent", []).append(sum(k.run(f"y={i}") for i in range(51)))
                xs.setdefault("flood_200k", []).append(k.run("for i in range(200000): print(i)"))
                xs.setdefault("display_1000", []).append(k.run(
                    "from IPython.display import display, HTML\nfor i in range(1000): display(HTML(f'<b>{i}</b>'))"))
                xs.setdefault("display_10k", []).append(k.run(
                    "from IPython.display import display\nfor i in range(10000): display(i)"))
                xs.setdefault("print_100mb", []).append(k.run("for _ in range(100): print('x' * 999_999)"))
                xs.setdefault("result_100mb", []).append(k.run("'x' * 100_000_000"))
                xs.setdefault("interrupt", []).extend(k.run("while True: print(1)", .5) for _ in range(5))
            finally:
                k.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"cold start {st.median(cold):.0f} ms")
    keep("raw_cold_start", cold)
    for name, v in xs.items():
        keep("raw_" + name, v)
        if len(v) == a.runs:
            print(f"raw_{name} {st.median(v):.0f} ms")
        else:
            print(f"raw_{name}: p50 {st.median(v):.2f} max {max(v):.2f} ms")


def main():
    ap = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--runs", type=int, default=1, help="repeat everything N times, each with a new kernel (1)")
    ap.add_argument("--timeout", type=float, default=60, help="seconds for one execution (60)")
    a = ap.parse_args()
    if a.runs < 1:
        ap.error("--runs starts at 1")
    try:
        import ipykernel, jupyter_client  # noqa: F401,E401
    except ImportError as e:
        ap.error(f"{e}; use an interpreter with ipykernel and jupyter_client")
    try:
        measure(a)
    except Exception as e:
        print(f"FAILED {'no answer in time' if isinstance(e, queue.Empty) else f'{type(e).__name__}: {e}'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
