"""What code in a notebook can see of how and where its kernel began.

Imported by a cell, from the notebook's own folder. Names of what is the kernel's own by nature are replaced: its
environment, the folder of its connection file, its process id.
"""
import asyncio
import gc
import json
import linecache
import locale
import logging
import multiprocessing
import os
import pathlib
import resource
import signal
import sys
import threading
import warnings

from IPython import get_ipython
from IPython.utils.capture import capture_output

# Variables that differ between any two kernels, and why.
OF_EACH_KERNEL = {"JPY_PARENT_PID": "the process that keeps the kernel"}


def around():
    """Writes down all there is to see, by process and cell."""
    shell = get_ipython()
    names = shell.user_ns
    seen = {
        **{f"name {name}": brief(value) for name, value in names.items()},
        "In and Out": (len(names["In"]), names["In"], names["Out"]),
        "hidden names": sorted(shell.user_ns_hidden),
        "execution count": (shell.execution_count, shell.kernel.execution_count),
        "%history": printed(shell, "history"),
        "%history -n": printed(shell, "history", "-n"),
        "history of the session": list(shell.history_manager.get_range(0)),
        "%dhist": printed(shell, "dhist"),
        "%lsmagic": {kind: sorted(magics) for kind, magics in shell.magics_manager.lsmagic().items()},
        "callbacks": {event: [brief(it) for it in called] for event, called in shell.events.callbacks.items()},
        "last result": shell.last_execution_succeeded,
        "__main__": sys.modules["__main__"].__dict__ is names,
        "folder": (os.getcwd(), os.path.realpath("/proc/self/cwd"), shell.starting_dir),
        "relative file": pathlib.Path("look.py").exists(),
        "folder of children": multiprocessing.process.ORIGINAL_DIR,
        "sys.argv": sys.argv,
        "command": sys.orig_argv,
        "sys.path": sys.path,
        "os.environ": {name: it for name, it in sorted(os.environ.items()) if name not in OF_EACH_KERNEL},
        "modules": sorted(sys.modules),
        "Python": (sys.executable, sys.prefix, str(sys.flags), sys.getrecursionlimit(), sys.getswitchinterval()),
        "hooks": [brief(it) for it in (sys.displayhook, sys.excepthook, sys.breakpointhook, sys.gettrace(), sys.getprofile())],
        "streams": [brief(it) for it in (sys.stdin, sys.stdout, sys.stderr)],
        "standard files": [os.readlink(f"/proc/self/fd/{number}").split(":")[0] for number in range(3)],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(asyncio.all_tasks()),
        "signals": {it.name: brief(signal.getsignal(it)) for it in signal.valid_signals() if it in list(signal.Signals)},
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "warnings": [str(it) for it in warnings.filters],
        "logging": (logging.root.level, [brief(it) for it in logging.root.handlers]),
        "locale": locale.getlocale(),
        "garbage collector": (gc.isenabled(), gc.get_threshold()),
        "sources": sum(not name.endswith(".py") for name in linecache.cache),
        "priority": (os.getpriority(os.PRIO_PROCESS, 0), pathlib.Path("/proc/self/oom_score_adj").read_text()),
        "umask": umask(),
        "limits": {it: resource.getrlimit(getattr(resource, it)) for it in dir(resource) if it.startswith("RLIMIT")},
        "leads": (os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()),
    }
    number = os.getpid()
    text = json.dumps(seen, indent=1, default=str)
    own = {sys.prefix: "<environment>", os.path.dirname(sys.argv[-1]): "<kernel>", f"ipykernel_{number}": "<sources>"}
    for name, replacement in own.items():
        text = text.replace(name, replacement)
    pathlib.Path(f"seen-{number}-{len(names['In']) - 1}.json").write_text(text)
    return "seen"


def printed(shell, magic, line=""):
    with capture_output() as captured:
        shell.run_line_magic(magic, line)
    return captured.stdout


def brief(value):
    """A value without its address."""
    plain = (str, int, float, list, tuple, dict, type(None))
    return repr(value) if isinstance(value, plain) else getattr(value, "__qualname__", type(value).__qualname__)


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
