"""What the scripts share: one client, waiting for events, validating files, ending the process.

Each script defines `async def main(client)`, or several such functions of which its argument names one; the first
failing assertion ends it with its traceback.
The socket is RUNTIMED_SOCKET_PATH; RUNTIMED_TEST_KERNEL_PYTHON has nbformat.
"""
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import traceback

import runtimed

# Longest wait for anything, on a busy two-core machine that is building environments.
LIMIT = 300


async def until(predicate, what):
    """Waits until a predicate over the local replica holds."""
    end = time.monotonic() + LIMIT
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"never came true: {what}")
        await asyncio.sleep(0.005)


async def saved(notebook, predicate):
    """Saves until a predicate over the file holds: now and then the client sends a request ahead of the edit that
    was made before it, and `save` names no heads to wait for."""
    for _ in range(3):
        await notebook.save()
        if predicate():
            return
    raise AssertionError("saved three times, and the edit is not in the file")


async def run(cell):
    """Runs a cell and returns its result."""
    return await cell.run(LIMIT)


async def ran(notebook, source):
    """Runs source in a new cell and returns the result."""
    return await run(await notebook.cells.create(source))


def value(result):
    """The text of the returned value."""
    values = [o.data["text/plain"] for o in result.outputs if o.output_type == "execute_result"]
    assert len(values) == 1, f"not one result but {values}, outputs {[o.output_type for o in result.outputs]}"
    return values[0]


async def refused(awaitable, *words):
    """The error of a call that must fail, with these words in it."""
    try:
        await awaitable
    except runtimed.RuntimedError as error:
        for word in words:
            assert word in str(error), f"`{word}` is not in: {error}"
        return str(error)
    raise AssertionError("the call should have been refused")


def validate(path):
    """Fails unless the file is a valid notebook in the eyes of nbformat."""
    check = "import nbformat, sys; nbformat.validate(nbformat.read(sys.argv[1], as_version=nbformat.NO_CONVERT))"
    done = subprocess.run(
        [os.environ["RUNTIMED_TEST_KERNEL_PYTHON"], "-c", check, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def folder():
    """A fresh folder; the test's temporary home is removed as a whole."""
    return tempfile.mkdtemp(dir=os.environ["HOME"])


def start(*mains):
    """Runs the only function, or the one that the argument names, with a client and ends the process; the client may
    crash in the interpreter's own shutdown."""
    (main,) = mains if len(mains) == 1 else [main for main in mains if sys.argv[1:] == [main.__name__]]

    async def all_of_it():
        async with runtimed.Client() as client:
            await main(client)

    code = 0
    try:
        asyncio.run(all_of_it())
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
