"""The daemon as its killer sees it: its process, those it left behind, what `runt verify` says.

The Rust test owns the daemon. A line "killed" on stdout asks it for the next one, whose pid it answers.
"""
import asyncio
import os
import signal
import subprocess

HOME = os.environ["HOME"]
ROOMS = os.path.join(HOME, ".cache/runt/rooms")


class Daemon:
    def __init__(self):
        self.pid = int(input())

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    async def start_again(self):
        print("killed", flush=True)
        self.pid = int(await asyncio.to_thread(input))

    def processes(self):
        """Pids, each with its start time, of the daemon's children and what it left: all that have its home."""
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = f"HOME={HOME}".encode() in file.read().split(b"\0")
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    stat = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            # A zombie has ended; it waits for whoever adopted it.
            if ours and int(pid) not in (os.getpid(), self.pid) and stat[0] != "Z":
                found.add((int(pid), stat[19]))
        return found


def verify():
    """Fails if anything that is kept could not come back whole."""
    runt = os.path.join(os.environ["RUNTIMED_TEST_DIST"], "bin/runt")
    done = subprocess.run([runt, "verify"], capture_output=True, text=True)
    assert done.returncode == 0, f"runt verify: {done.stdout}{done.stderr}"
