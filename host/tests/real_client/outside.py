"""Other programs write the file of an open notebook: editors, git, formatters, in every way they have."""
import json
import os
import subprocess

from support import folder, saved, start, until, validate

CELLS = ["import math", "a = 1\nb = 2\nc = 3", "last"]


def document(sources, ids=None, indent=1, **metadata):
    ids = ids or [f"cell-{index}" for index in range(len(sources))]
    cells = [
        {"cell_type": "code", "execution_count": None, "id": id, "metadata": {}, "outputs": [], "source": source.splitlines(True)}
        for id, source in zip(ids, sources)
    ]
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=indent) + "\n"


def write(path, text):
    """In place, as a program that opens and writes does."""
    with open(path, "w") as f:
        f.write(text)


def rename(path, text):
    """Beside it, and then over it, as editors do."""
    with open(path + "~", "w") as f:
        f.write(text)
    os.rename(path + "~", path)


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def on_disk(path):
    return ["".join(cell["source"]) for cell in json.load(open(path))["cells"]]


async def opened(client, name="notebook.ipynb"):
    path = os.path.join(folder(), name)
    write(path, document(CELLS))
    notebook = await client.open_notebook(path)
    assert sources(notebook) == CELLS
    return notebook, path


async def main(client):
    # Written in place and by renaming: the window follows, the other cells are the very same.
    notebook, path = await opened(client)
    for how in [write, rename]:
        text = f"# {how.__name__}"
        how(path, document([text, *CELLS[1:]]))
        await until(lambda: sources(notebook) == [text, *CELLS[1:]], how.__name__)
    rename(path, document([*CELLS, "new"]))
    await until(lambda: sources(notebook) == [*CELLS, "new"], "a cell that was added outside")
    rename(path, document([CELLS[2], CELLS[0]], ["cell-2", "cell-0"], note="moved"))
    await until(lambda: sources(notebook) == [CELLS[2], CELLS[0]], "cells moved and deleted outside")

    # Edits here and there meet, in one cell too, and both reach the file.
    notebook, path = await opened(client)
    cells = list(notebook.cells)
    await cells[1].set_source("a = 1\nb = 2\nc = 'here'")
    await cells[2].set_source("last, here")
    rename(path, document(["import numpy", "a = 'there'\nb = 2\nc = 3", "last"]))
    both = ["import numpy", "a = 'there'\nb = 2\nc = 'here'", "last, here"]
    await until(lambda: sources(notebook) == both, "both edits")
    await saved(notebook, lambda: on_disk(path) == both)
    validate(path)

    # Right before a save, with no time to notice: merged all the same, and answered.
    await cells[2].set_source("saved")
    write(path, document(["import scipy", *both[1:]]))
    await saved(notebook, lambda: on_disk(path) == ["import scipy", both[1], "saved"])

    # Two versions of one line: both stay, side by side, and the second says what it is.
    notebook, path = await opened(client)
    await list(notebook.cells)[2].set_source("mine")
    rename(path, document([*CELLS[:2], "yours"]))
    await until(lambda: len(notebook.cells) == 4, "both versions")
    assert sources(notebook) == [*CELLS[:2], "mine", "yours"]
    await saved(notebook, lambda: on_disk(path) == [*CELLS[:2], "mine", "yours"])
    metadata = [cell["metadata"] for cell in json.load(open(path))["cells"]]
    assert [it.get("tags") for it in metadata] == [None, None, None, ["conflict"]]
    assert "cell-2" in metadata[3]["conflict"]
    validate(path)

    # git: another version is checked out while there are edits here.
    notebook, path = await opened(client)
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=os.path.dirname(path), check=True, capture_output=True
    )
    git("init", "-q", "-b", "one")
    git("add", ".")
    git("commit", "-qm", "one")
    git("checkout", "-qb", "two")
    write(path, document(["# branch two", *CELLS[1:]]))
    await until(lambda: sources(notebook)[0] == "# branch two", "the second branch")
    git("commit", "-qam", "two")
    git("checkout", "-q", "one")
    await until(lambda: sources(notebook) == CELLS, "back on the first branch")

    # A formatter lays the file out anew and gives every cell a new id: nothing happens here, and what is saved
    # later keeps to the new layout.
    notebook, path = await opened(client)
    before = notebook.cells
    ids = [cell.id for cell in before]
    new = document(CELLS, ["x", "y", "z"], indent=4, language_info={"name": "python"})
    rename(path, new)
    await notebook.save()
    assert open(path).read() == new, "there was nothing to save"
    assert [cell.id for cell in notebook.cells] == ids, "the same cells under the ids they have here"
    await list(notebook.cells)[0].set_source("formatted")
    await saved(notebook, lambda: on_disk(path) == ["formatted", *CELLS[1:]])
    assert open(path).read() == document(["formatted", *CELLS[1:]], ids, indent=4, language_info={"name": "python"})

    # Touched, or written again as it was: nothing to do.
    notebook, path = await opened(client)
    os.utime(path)
    write(path, document(CELLS))
    stamp = os.stat(path).st_mtime_ns
    await notebook.save()
    assert sources(notebook) == CELLS and os.stat(path).st_mtime_ns == stamp

    # Cut off in the middle of a write: waited for, and never overwritten.
    text = document(["whole again", *CELLS[1:]])
    write(path, text[: len(text) // 2])
    await list(notebook.cells)[2].set_source("here")
    try:
        await notebook.save()
        raise AssertionError("saved over a file that somebody is writing")
    except Exception as error:
        assert "cannot be read any more" in str(error) and "Kept: " in str(error), error
    assert open(path).read() == text[: len(text) // 2]
    write(path, text)
    await until(lambda: sources(notebook) == ["whole again", CELLS[1], "here"], "the whole file")
    await until(lambda: on_disk(path)[2] == "here", "autosave goes on")

    # Deleted and made again.
    notebook, path = await opened(client)
    os.remove(path)
    rename(path, document(["made again", *CELLS[1:]]))
    await until(lambda: sources(notebook)[0] == "made again", "a file that was made again")
    os.remove(path)
    await list(notebook.cells)[0].set_source("not lost")
    await saved(notebook, lambda: os.path.exists(path) and on_disk(path)[0] == "not lost")

    # A link to the file stays one, and what is behind it is followed.
    notebook, path = await opened(client, "real.ipynb")
    link = os.path.join(folder(), "link.ipynb")
    os.symlink(path, link)
    linked = await client.open_notebook(link)
    assert linked.notebook_id == notebook.notebook_id
    await list(linked.cells)[0].set_source("through the link")
    await saved(linked, lambda: on_disk(path)[0] == "through the link")
    assert os.path.islink(link)
    write(link, document(["written through the link", *CELLS[1:]]))
    await until(lambda: sources(notebook)[0] == "written through the link", "an edit through the link")

    # A file that appears where a new notebook was about to be.
    path = os.path.join(folder(), "late.ipynb")
    notebook = await client.open_notebook(path)
    write(path, document(CELLS))
    await until(lambda: sources(notebook) == CELLS, "a file that came later")


start(main)
