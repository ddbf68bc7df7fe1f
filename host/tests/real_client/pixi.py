"""A machine without pixi: projects of pixi's are seen, what notebooks declare for it needs approval, and every launch says
what is missing. With a pixi the labels are the same; that is not tested here."""
import json
import os
import pathlib

from support import folder, start, until

MANIFEST = """[workspace]
channels = ["conda-forge"]
platforms = ["linux-64"]
[dependencies]
python = ">=3.11"
ipykernel = "*"
[pypi-dependencies]
cowsay = ">=5"
"""
BLOCK = "# /// script\n# dependencies = [\"xmltodict\"]\n# ///\n"
MISSING = "pixi is not installed: it is not on the daemon's PATH nor in `"


def write(name, source="", **metadata):
    path = pathlib.Path(folder(), name)
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    path.write_text(json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return str(path)


def allowed():
    file = pathlib.Path(os.environ["HOME"], ".cache/runt/trusted-packages.json")
    return file.read_text() if file.exists() else ""


async def failed(notebook, begins):
    await until(lambda: notebook.runtime.kernel.lifecycle == "Error", "there is no pixi")
    details = notebook.runtime.kernel.error_details
    assert details.startswith(begins + MISSING), details
    assert "Nothing was created" in details and "Install pixi" in details, details


async def held(notebook):
    await until(lambda: notebook.runtime.kernel.lifecycle == "AwaitingTrust", "the user is asked first")
    await notebook.approve_trust()


async def main(client):
    directory = pathlib.Path(folder(), "lab")
    directory.mkdir()
    file = directory / "pixi.toml"
    file.write_text(MANIFEST)
    notebook = await client.open_notebook(write(directory / "in.ipynb"))
    await failed(notebook, "Failed to prepare pixi:toml environment: ")
    context = lambda: json.loads(notebook.runtime.project_context_json)
    await until(lambda: context()["state"].lower() == "detected", "the project is shown")
    assert context()["project_file"]["relative_to_notebook"] == "pixi.toml", context()
    assert context()["project_file"]["kind"] == "PixiToml", context()
    assert sorted(context()["parsed"]["dependencies"]) == ["ipykernel", "python>=3.11"], context()
    assert "cowsay>=5" in str(context()["parsed"]["extras"]), context()
    assert file.read_text() == MANIFEST and set(os.listdir(directory)) == {"pixi.toml", "in.ipynb"}, "as it was"
    await notebook.disconnect()

    declared = {"dependencies": ["textdistance"], "pypi_dependencies": ["cowsay"], "channels": ["bioconda"]}
    notebook = await client.open_notebook(write("declared.ipynb", runt={"pixi": declared}))
    assert "cowsay" not in allowed()
    await held(notebook)
    await failed(notebook, "Failed to prepare inline environment: ")
    trusted = json.loads(allowed())
    for name in ("textdistance", "cowsay", "bioconda"):
        assert name in json.dumps(trusted), trusted
    await notebook.disconnect()

    # What a script block names is of the Python index, for pixi too.
    notebook = await client.open_notebook(write("script.ipynb", BLOCK))
    await held(notebook)
    await failed(notebook, "Failed to prepare PEP 723 environment: ")
    assert {"ecosystem": "pypi", "name": "xmltodict"} in names(json.loads(allowed())), allowed()
    await notebook.disconnect()

    notebook = await client.open_notebook(write("plain.ipynb"))
    await failed(notebook, "Failed to acquire prewarmed environment for pixi:prewarmed. ")
    await notebook.disconnect()


def names(trusted):
    """What is allowed, without when and why."""
    return [{"ecosystem": one["ecosystem"], "name": one["name"]} for one in trusted["packages"]]


start(main)
