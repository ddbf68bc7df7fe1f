"""Every recorded cell of the reference daemon, run here: what the client shows and what is saved is the same, but for
what is listed below with its reason.

The recordings lie with the room's own tests, which replay what the kernel said in them.
"""
import glob
import json
import os
import re

from support import folder, run, start

RECORDINGS = os.path.join(os.path.dirname(__file__), "../../../plugins/rooms/tests/data/outputs/*.json")

# What is shown and saved here instead.
TRACEBACK = "the kernel's own traceback: IPython's, where the reference's launcher puts one in plain text"
DIFFERENT = {
    "03_error": TRACEBACK,
    "03b_syntax_error": TRACEBACK,
    "12c_error_after_output": TRACEBACK,
    "13_input": TRACEBACK,
    "09f_long_line_wrap": "long lines are not cut",
    "09g_trailing_spaces": "trailing blanks and blank lines are kept",
    "09i_only_newlines": "blank lines are kept",
    "10_clear_output_nowait": "clear_output is honored",
    "10b_clear_output_wait": "clear_output is honored",
    "10c_clear_output_display": "clear_output is honored",
}


# What a cell imports that is not in every environment.
IMPORTS = {"05b_matplotlib": "matplotlib"}


def comparable(outputs, drawn):
    """Outputs without what differs from run to run: counts, the ids of widgets, and of a drawn picture the bytes, which
    name the version of what drew it."""
    outputs = [{key: value for key, value in output.items() if key != "execution_count"} for output in outputs]
    for output in outputs if drawn else []:
        assert len(output["data"]["image/png"]) > 1000
        output["data"] = {**output["data"], "image/png": "drawn"}
    return re.sub("[0-9a-f]{32}", "ID", json.dumps(outputs, sort_keys=True))


def without_tracebacks(outputs):
    return [{**output, "traceback": []} if output["output_type"] == "error" else output for output in outputs]


async def main(client):
    notebooks = {None: await client.create_notebook()}
    for package in IMPORTS.values():
        notebooks[package] = await client.create_notebook(dependencies=[package])
    cells = []
    for path in sorted(glob.glob(RECORDINGS)):
        with open(path) as f:
            recorded = json.load(f)
        name = os.path.basename(path).removesuffix(".json")
        cell = await notebooks[IMPORTS.get(name)].cells.create(recorded["source"])
        cells.append((name, recorded, cell, await run(cell)))
    assert len(cells) >= 40, len(cells)
    saved = {}
    for number, notebook in enumerate(notebooks.values()):
        path = os.path.join(folder(), f"samples-{number}.ipynb")
        await notebook.save_as(path)
        with open(path) as f:
            saved |= {cell["id"]: cell["outputs"] for cell in json.load(f)["cells"]}
    wrong = []
    for name, recorded, cell, result in cells:
        ours, theirs = saved[cell.id], recorded["nbformat_cell_saved"]["outputs"]
        shown = {"success": result.success, "stdout": result.stdout, "stderr": result.stderr}
        same_shown = all(recorded["client"][key] == value for key, value in shown.items())
        if DIFFERENT.get(name) == TRACEBACK:
            ours, theirs = without_tracebacks(ours), without_tracebacks(theirs)
        ours, theirs = (comparable(outputs, name in IMPORTS) for outputs in (ours, theirs))
        same = same_shown and ours == theirs
        # What stops being different is to be taken off the list.
        if same != (name not in DIFFERENT or DIFFERENT[name] == TRACEBACK):
            wrong.append(f"{name}: {shown}\n  ours   {ours[:900]}\n  theirs {theirs[:900]}")
    assert not wrong, "\n".join(wrong)


start(main)
