"""Files no notebook can be read from or saved to: each error says what happened, what was kept and what to
do next, and leaves the file alone. The daemon is a user whom permissions stop: the one who owns the home."""
import json
import os
import socket
import stat

import support
from support import folder, refused, saved, start

OWNER = os.stat(os.environ["HOME"])
# Loaded while we may: Python may lie where the owner cannot go.
"".encode("utf-16")

NOTEBOOK = json.dumps({
    "cells": [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": ["1"]}],
    "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
})


def validate(path):
    """As everybody else validates: by a Python that lies where the owner cannot go."""
    os.seteuid(os.getuid())
    support.validate(path)
    os.seteuid(OWNER.st_uid)


def state(path):
    """All that must not change about a file."""
    found = os.lstat(path)
    content = None
    readable = os.access(path, os.R_OK, effective_ids=True)
    if readable and stat.S_ISREG(found.st_mode) and found.st_size < 1 << 20:
        content = open(path, "rb").read()
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode, content


def file(content, name="notebook.ipynb", mode=0o644):
    path = os.path.join(folder(), name)
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    os.chmod(path, mode)
    return path


async def not_saved(notebook, *words):
    """A save that must fail, once the edit before it has come (see `support.saved`)."""
    for _ in range(3):
        try:
            await notebook.save()
        except Exception as error:
            for word in (*words, "\nKept: ", "\nNext: "):
                assert word in str(error), f"`{word}` is not in: {error}"
            return
    raise AssertionError("the save should have been refused")


async def report(awaitable, *words):
    return await refused(awaitable, *words, "\nKept: ", "\nNext: ")


async def cannot_be_opened(client, path, *words):
    before = state(path)
    await report(client.open_notebook(path), *words)
    assert state(path) == before, f"{path} was touched"


async def main(client):
    assert OWNER.st_uid != 0, "permissions mean nothing to root"
    os.setegid(OWNER.st_gid)
    os.seteuid(OWNER.st_uid)
    merge = NOTEBOOK[:30] + "\n<<<<<<< HEAD\n" + NOTEBOOK[30:]
    for content, *words in [
        ("{", "Invalid notebook JSON: EOF", "cut off"),
        (NOTEBOOK[:80], "Invalid notebook JSON: EOF", "cut off"),
        (merge, "Invalid notebook JSON", "git"),
        (b"{\"cells\": [\xe9]}", "byte 11 is not UTF-8", "convert"),
        (NOTEBOOK.encode("utf-16"), "is not UTF-8", "convert"),
        ("[]", "Notebook is not a JSON object"),
        ("{}", "no 'cells' key"),
        ('{"cells": {}}', "'cells' is not an array"),
        ('{"nbformat": 5, "cells": []}', "format 5 is newer", "update"),
        ('{"nbformat": 1, "cells": []}', "format 1 is too old", "nbconvert"),
    ]:
        await cannot_be_opened(client, file(content), *words)

    await cannot_be_opened(client, file(NOTEBOOK, mode=0), "Permission denied", "permission to read")
    giant = file("")
    os.truncate(giant, 200 << 20)
    await cannot_be_opened(client, giant, "it has 200 MB", "--clear-output")
    pipe = os.path.join(folder(), "pipe.ipynb")
    os.mkfifo(pipe)
    await cannot_be_opened(client, pipe, "neither a file nor a directory")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder(), "s.ipynb"))
    await cannot_be_opened(client, listener.getsockname(), "neither a file nor a directory")
    await cannot_be_opened(client, "/dev/null", "neither a file nor a directory")
    hidden = file(NOTEBOOK)
    os.chmod(os.path.dirname(hidden), 0)
    await report(client.open_notebook(hidden), "Permission denied")
    os.chmod(os.path.dirname(hidden), 0o755)
    await report(client.open_notebook(os.path.join(hidden, "x.ipynb")), "Not a directory", "a part of it is a file")
    await report(client.open_notebook(os.path.join(folder(), "n" * 300)), "name too long", "shorter")

    # A mark at the start is no error, and stays.
    marked = file(b"\xef\xbb\xbf" + NOTEBOOK.encode())
    notebook = await client.open_notebook(marked)
    assert [cell.source for cell in notebook.cells] == ["1"]
    await list(notebook.cells)[0].set_source("2")
    wanted = b"\xef\xbb\xbf" + NOTEBOOK.replace('"1"', '"2"').encode()
    await saved(notebook, lambda: open(marked, "rb").read() == wanted)

    # Nothing in it: a new notebook, and nothing is written before somebody says so.
    empty = file("")
    before = state(empty)
    notebook = await client.open_notebook(empty)
    assert len(notebook.cells) == 1 and state(empty) == before
    await list(notebook.cells)[0].set_source("1")
    await saved(notebook, lambda: state(empty) != before)
    validate(empty)

    # No folder: made by the first save.
    missing = os.path.join(folder(), "deep", "er", "new.ipynb")
    notebook = await client.open_notebook(missing)
    assert not os.path.exists(os.path.dirname(missing))
    await list(notebook.cells)[0].set_source("1")
    await notebook.save()
    validate(missing)

    # Read-only from the start: shown, and left alone.
    only_read = file(NOTEBOOK, mode=0o444)
    before = state(only_read)
    notebook = await client.open_notebook(only_read)
    assert [cell.source for cell in notebook.cells] == ["1"]
    await refused(notebook.save())
    assert state(only_read) == before

    # Read-only later: the edits stay in the notebook until it can be saved.
    later = file(NOTEBOOK)
    notebook = await client.open_notebook(later)
    await list(notebook.cells)[0].set_source("2")
    os.chmod(later, 0o444)
    before = state(later)
    await not_saved(notebook, "could not replace", "make the file writable")
    assert state(later) == before
    os.chmod(later, 0o644)
    await saved(notebook, lambda: json.load(open(later))["cells"][0]["source"] == ["2"])

    # A folder nothing may be put into.
    closed = file(NOTEBOOK)
    notebook = await client.open_notebook(closed)
    await list(notebook.cells)[0].set_source("2")
    os.chmod(os.path.dirname(closed), 0o555)
    before = state(closed)
    await not_saved(notebook, "could not replace", "make the folder")
    assert state(closed) == before
    await report(client.open_notebook(os.path.dirname(closed)), "the directory is not writable")

    # Targets that are no files.
    for target, *words in [
        (pipe, "neither a file nor a directory"),
        (os.path.join(later, "x.ipynb"), "a part of"),
        (os.path.join(os.path.dirname(closed), "x.ipynb"), "make the folder"),
    ]:
        await report(notebook.save_as(target), *words)
    os.mkdir(os.path.join(os.path.dirname(later), "folder.ipynb"))
    await report(notebook.save_as(os.path.join(os.path.dirname(later), "folder.ipynb")), "directory")
    os.chmod(os.path.dirname(closed), 0o755)


start(main)
