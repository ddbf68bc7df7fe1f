"""The daemon as its killer sees it: its process, those of its kernels and plugins, what `runt verify` says.

The Rust test owns the daemon. A line "killed" on stdout asks it for the next one, whose pid it answers; a line "live"
with a notebook's id lets its bystander act, a line "rest" lets that end, which it answers.
"""
import asyncio
import glob
import os
import signal
import subprocess

HOME = os.environ["HOME"]
ROOMS = os.path.join(HOME, ".cache/runt/rooms")
# What files are called while they are written.
UNFINISHED = [".config/nteract/.runtimed-*", ".cache/runt/blobs/.tmp.*"]


class Daemon:
    def __init__(self):
        self.pid = int(input())

    def kill(self):
        kill(self.pid)

    async def start_again(self):
        print("killed", flush=True)
        self.pid = int(await asyncio.to_thread(input))

    async def rest(self):
        print("rest", flush=True)
        assert await asyncio.to_thread(input) == "rested"


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def processes():
    """Kind -> {pid: parent's pid} of everything in the daemon's home, of this daemon and those before it."""
    found = {"kernel": {}, "shim": {}, "plugin": {}}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/cmdline", "rb") as command:
                ours, words = f"HOME={HOME}".encode() in environ.read().split(b"\0"), command.read().split(b"\0")
            with open(f"/proc/{pid}/stat") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            # It has ended meanwhile.
            continue
        if not ours:
            continue
        if b"python" in words[0] and any(b"ipykernel" in word for word in words):
            found["kernel"][int(pid)] = parent
        elif words[0].endswith(b"runtimed-kernel"):
            found["shim"][int(pid)] = parent
        elif b"plugin-child" in words:
            found["plugin"][int(pid)] = parent
    return found


def orphans(daemon, notebooks):
    """What should not be there: nothing, if each notebook has one kernel at most."""
    found = processes()
    folders = glob.glob(os.path.join(HOME, "run/runt/*/kernels/*"))
    wrong = [
        f"{pid} is a kernel whose keeper {parent} is gone" for pid, parent in found["kernel"].items() if parent not in found["shim"]
    ]
    wrong += [f"{pid} is a plugin of {parent}" for pid, parent in found["plugin"].items() if parent != daemon.pid]
    if max(len(found["shim"]), len(folders)) > notebooks:
        wrong.append(f"{notebooks} notebooks have {len(found['shim'])} kernels in {len(folders)} folders")
    if len(folders) != len(found["shim"]):
        wrong.append(f"{len(found['shim'])} kernels have {len(folders)} folders")
    return wrong + [path for pattern in UNFINISHED for path in glob.glob(os.path.join(HOME, pattern))]


def verify():
    """Fails if anything that is kept could not come back whole."""
    runt = os.path.join(os.environ["RUNTIMED_TEST_DIST"], "bin/runt")
    done = subprocess.run([runt, "verify"], capture_output=True, text=True)
    assert done.returncode == 0, f"runt verify: {done.stdout}{done.stderr}"
