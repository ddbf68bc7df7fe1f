"""The daemon as its killer sees it: its process, its kernels, what `runt verify` says.

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

    def kernels(self):
        """Pids of all kernels in the daemon's home, its own and those of daemons before it."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/cmdline", "rb") as command:
                    ours, words = f"HOME={HOME}".encode() in environ.read().split(b"\0"), command.read().split(b"\0")
            except OSError:
                # It has ended meanwhile.
                continue
            if ours and b"python" in words[0] and any(b"ipykernel" in word for word in words):
                found.append(int(pid))
        return found


def verify():
    """Fails if anything that is kept could not come back whole."""
    runt = os.path.join(os.environ["RUNTIMED_TEST_DIST"], "bin/runt")
    done = subprocess.run([runt, "verify"], capture_output=True, text=True)
    assert done.returncode == 0, f"runt verify: {done.stdout}{done.stderr}"
