"""Notebooks in files: opened with their outputs, edited, saved, saved elsewhere."""
import json
import os

from support import folder, ran, refused, run, start, until, validate

OLD = {
    "nbformat": 4,
    "nbformat_minor": 4,
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "custom": {"b": [1, {"c": None}], "a": 1.5},
    },
    "cells": [
        {"cell_type": "markdown", "metadata": {"tags": ["t"]}, "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "execution_count": 7,
            "metadata": {"collapsed": False},
            "source": "print('old')\n1",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["old\n"]},
                {
                    "output_type": "execute_result",
                    "execution_count": 7,
                    "metadata": {},
                    "data": {"text/plain": ["1"], "image/png": "iVBORw0KGgo=", "application/json": {"k": [1]}},
                },
                {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a", "b"]},
            ],
        },
        {"cell_type": "raw", "metadata": {}, "source": []},
    ],
}


async def main(client):
    path = os.path.join(folder(), "old.ipynb")
    with open(path, "w") as f:
        json.dump(OLD, f, indent=2)
    notebook = await client.open_notebook(path)
    cells = list(notebook.cells)
    assert [c.cell_type for c in cells] == ["markdown", "code", "raw"]
    assert cells[1].source == "print('old')\n1" and cells[1].execution_count == 7
    stream, result, error = cells[1].outputs
    assert stream.text == "old\n" and error.ename == "E" and error.traceback == ["a", "b"]
    assert result.data["text/plain"] == "1" and result.data["image/png"] == b"\x89PNG\r\n\x1a\n"
    assert result.data["application/json"] == {"k": [1]}

    before = open(path, "rb").read()
    assert before == json.dumps(OLD, indent=2).encode(), "opening a file does not touch it"

    await cells[0].append("\nmore")
    assert (await run(cells[1])).stdout == "old\n"
    await notebook.save()
    validate(path)
    saved = json.load(open(path))
    assert saved["metadata"]["custom"] == OLD["metadata"]["custom"]
    assert "".join(saved["cells"][0]["source"]) == "# Title\ntext\nmore"
    assert saved["cells"][0]["metadata"] == {"tags": ["t"]}
    assert saved["cells"][1]["execution_count"] == 1
    assert [o["output_type"] for o in saved["cells"][1]["outputs"]] == ["stream", "execute_result"]
    assert saved["nbformat_minor"] >= 5 and all(c["id"] for c in saved["cells"])

    elsewhere = os.path.join(folder(), "deep", "copy")
    assert await notebook.save_as(elsewhere) == elsewhere + ".ipynb"
    validate(elsewhere + ".ipynb")
    again = await client.open_notebook(elsewhere + ".ipynb")
    assert again.notebook_id == notebook.notebook_id, "the file belongs to the notebook that was saved there"

    untitled = await client.create_notebook()
    await refused(untitled.save(), "Please provide an explicit save path")
    await ran(untitled, "print('autosaved')")
    target = os.path.join(folder(), "new.ipynb")
    await untitled.save_as(target)
    await untitled.cells.create("# typed and never saved by hand")
    await until(lambda: "never saved by hand" in open(target).read(), "autosave writes the file")
    validate(target)
    await refused(notebook.save_as(target), "already open")

    os.remove(target)
    assert await untitled.save() == target and os.path.exists(target), "a file that is gone is written again"
    for name, content, words in [
        ("broken.ipynb", "{", "Invalid notebook JSON"),
        ("array.ipynb", "[]", "Notebook is not a JSON object"),
        ("nocells.ipynb", "{}", "no 'cells' key"),
    ]:
        bad = os.path.join(folder(), name)
        with open(bad, "w") as f:
            f.write(content)
        await refused(client.open_notebook(bad), words)
        assert open(bad).read() == content, "a file that cannot be read is left alone"

    fresh = os.path.join(folder(), "fresh.ipynb")
    notebook = await client.open_notebook(fresh)
    assert len(notebook.cells) == 1 and not os.path.exists(fresh)
    await notebook.cells.create("x = 1")
    await notebook.save()
    validate(fresh)


start(main)
