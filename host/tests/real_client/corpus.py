"""Notebooks of many origins: opened and saved they stay as they are; an edit changes what it is about.

RUNTIMED_TEST_NOTEBOOKS has the notebooks that packages ship; those kinds they lack are in the repository. Huge
ones are made here.
"""
import copy
import difflib
import json
import os
import pathlib
import re
import subprocess

import support
from support import folder, start

HERE = pathlib.Path(__file__).parent
OWN = HERE / "../../../plugins/rooms/tests/data/notebooks"
EDIT = "edited_here = True"

# Runs where nbformat is. Reads lines of [before, after]; says for each what nbformat thinks of both, and the older
# one in the newest format.
NBFORMAT = """
import json, logging, sys, warnings
import nbformat
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

def read(path):
    text = open(path, encoding="utf-8-sig").read()
    return nbformat.reads(text, as_version=nbformat.NO_CONVERT)

def problem(notebook):
    try:
        nbformat.validate(notebook, repair_duplicate_cell_ids=False)
    except Exception as error:
        return repr(error)[:300]

for line in sys.stdin:
    before, after = json.loads(line)
    was = converted = None
    try:
        before = read(before)
        was = problem(before)
        converted = before if before.nbformat == 4 else nbformat.convert(before, 4)
    except Exception as error:
        # Missing something that nbformat wants, and we do not.
        was = repr(error)
    try:
        after = read(after)
        print(json.dumps([was, problem(after), converted, after]), flush=True)
    except Exception as error:
        print(json.dumps([was, repr(error), converted, None]), flush=True)
"""


def joined(value):
    """Text that may be a list of lines, as one text."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value


def meaning(notebook):
    """What a notebook says, without how it says it: line lists, generated ids, the number of its old format."""
    notebook = copy.deepcopy(notebook)
    notebook.pop("nbformat_minor", None)
    notebook.get("metadata", {}).pop("orig_nbformat", None)
    notebook.get("metadata", {}).pop("orig_nbformat_minor", None)
    for cell in notebook["cells"]:
        cell.pop("id", None)
        cell["source"] = joined(cell.get("source", ""))
        # What nbformat 4 asks of every cell, and some programs leave out.
        cell.setdefault("metadata", {})
        if cell["cell_type"] == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = joined(output["text"])
            if output.get("output_type") == "execute_result":
                output.setdefault("execution_count", None)
            if output.get("output_type") in ("display_data", "execute_result"):
                output.setdefault("metadata", {})
            for media_type, value in output.get("data", {}).items():
                output["data"][media_type] = value if "json" in media_type else joined(value)
        for bundle in cell.get("attachments", {}).values():
            for media_type, value in bundle.items():
                bundle[media_type] = joined(value)
    return notebook


def is_laid_out(text):
    """Whether a file is laid out regularly, in lines, as programs do: of others only the meaning counts."""
    return any(
        text.strip() == json.dumps(json.loads(text), indent=indent, ensure_ascii=ascii)
        for indent in (1, 2, 4, "\t")
        for ascii in (True, False)
    )


def lines_only_about_the_edit(before, after, source):
    """Fails if a line changed that the edit is not about."""
    texts = [source, source.removesuffix("\n" + EDIT)]
    texts += [line for text in texts for line in text.splitlines(True)]
    about = {json.dumps(text, ensure_ascii=ascii) for text in texts for ascii in (True, False)}

    def is_about(line):
        bare = line.strip().rstrip(",")
        return (
            re.fullmatch(r'"id": "[^"]*"|"nbformat(_minor)?": \d+|[\[\]]|"source": \[?\]?', bare) is not None
            or bare.removeprefix('"source": ') in about
        )

    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    removed = [line[2:] for line in changed if line[0] == "-"]
    added = [line[2:] for line in changed if line[0] == "+"]
    # A comma behind a line because there is a line behind it now, or the other way round.
    bare_added = {line.rstrip().rstrip(",") for line in added}
    bare_removed = {line.rstrip().rstrip(",") for line in removed}
    strange = [line for line in removed if not is_about(line) and line.rstrip().rstrip(",") not in bare_added]
    strange += [line for line in added if not is_about(line) and line.rstrip().rstrip(",") not in bare_removed]
    assert not strange, strange[:10]


def huge():
    """A notebook with more output than anybody reads."""
    text = [f"line {number} of many, each with a few words in it\n" for number in range(100_000)]
    picture = "iVBORw0KGgo" + "A" * 4_000_001
    outputs = [
        {"name": "stdout", "output_type": "stream", "text": text},
        {"data": {"image/png": picture, "text/html": ["<tr/>\n"] * 20_000}, "metadata": {}, "output_type": "display_data"},
    ]
    outputs += [{"data": {"text/plain": [str(number)]}, "metadata": {}, "output_type": "display_data"} for number in range(2_000)]
    cells = [{"cell_type": "code", "execution_count": 1, "id": "big", "metadata": {}, "outputs": outputs, "source": ["x"]}]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


async def main(client):
    where = folder()
    own = os.path.join(where, "own__huge.ipynb")
    with open(own, "w") as f:
        f.write(huge())
    files = [pathlib.Path(own), *sorted(OWN.glob("*.ipynb"))]
    files += sorted(pathlib.Path(os.environ["RUNTIMED_TEST_NOTEBOOKS"]).glob("*.ipynb"))
    assert len(files) >= 60, f"{len(files)} notebooks are not enough"
    nbformat = subprocess.Popen(
        [os.environ["RUNTIMED_TEST_KERNEL_PYTHON"], "-c", NBFORMAT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    failures, refused, seen, compared = [], [], 0, 0
    for index, file in enumerate(files):
        path = pathlib.Path(where, f"{index}.ipynb")
        before = file.read_bytes()
        path.write_bytes(before)
        stamp = path.stat()
        try:
            notebook = await client.open_notebook(str(path))
        except Exception as error:
            assert path.read_bytes() == before
            refused.append(f"{file.name}: {str(error).splitlines()[0]}")
            continue
        try:
            # Nothing changed, so nothing is written, not even when asked for.
            await notebook.save()
            now = path.stat()
            assert (now.st_mtime_ns, now.st_ino, path.read_bytes()) == (stamp.st_mtime_ns, stamp.st_ino, before), "was rewritten"
            cells = list(notebook.cells)
            at = next((i for i, cell in enumerate(cells) if cell.cell_type in ("code", "markdown")), None)
            if at is None:
                await notebook.cells.create(EDIT)
                source = EDIT
            else:
                source = cells[at].source + "\n" + EDIT
                await cells[at].set_source(source)
            await support.saved(notebook, lambda: EDIT in path.read_bytes().decode())
            nbformat.stdin.write(json.dumps([str(file), str(path)]) + "\n")
            nbformat.stdin.flush()
            was, problem, old, new = json.loads(nbformat.stdout.readline())
            assert new is not None and (problem is None or was is not None), f"was {was}, and is {problem}"
            if old is None:
                seen += 1
                continue
            old, new = meaning(old), meaning(new)
            if at is None:
                new["cells"].pop()
            else:
                got = new["cells"][at]["source"]
                assert got == source, f"{got!r} was saved instead of {source!r}"
                old["cells"][at]["source"] = source
            assert new == old, "".join(difflib.unified_diff(*(json.dumps(it, indent=1, sort_keys=True).splitlines(True) for it in (old, new)), n=1))[:1500]
            if at is not None and json.loads(before.decode("utf-8-sig")).get("nbformat") == 4 and is_laid_out(before.decode()):
                compared += 1
                lines_only_about_the_edit(before.decode(), path.read_bytes().decode(), source)
            seen += 1
        except Exception as error:
            failures.append(f"{file.name}: {error!r:.1800}")
        finally:
            await notebook.disconnect()
    nbformat.stdin.close()
    nbformat.wait()
    # It has nothing that could be a cell.
    assert [line.partition(":")[0].partition("__")[2] for line in refused] == ["tests__test3_no_worksheets.ipynb"], refused
    assert not failures, f"{len(failures)} of {len(files)}:\n" + "\n".join(failures)
    assert seen >= 100 and compared >= 60, (seen, compared)


start(main)
