"""Conda: its pool serves new notebooks; what a notebook declares needs approval, channels too, and what the
environment.yml beside it declares; what cannot be solved says which package it is."""
import asyncio
import json
import os
import pathlib
import struct
import zipfile

from support import folder, ran, refused, start, until, value

CHANNEL = json.load(open(os.path.expanduser("~/.config/nteract/settings.json")))["conda"]["channels"][0]


async def declared(client, name, dependencies, **more):
    """A notebook with conda dependencies, held until they are approved."""
    conda = {"dependencies": dependencies, "channels": [CHANNEL], **more}
    path = os.path.join(folder(), name)
    with open(path, "w") as f:
        json.dump({"nbformat": 4, "nbformat_minor": 5, "metadata": {"runt": {"conda": conda}}, "cells": []}, f)
    notebook = await client.open_notebook(path)
    await until(lambda: notebook.runtime.kernel.lifecycle == "AwaitingTrust", "the user is asked first")
    return notebook


async def pooled(client):
    notebook = await client.create_notebook()
    prefix = value(await ran(notebook, "import os, sys; assert os.environ['CONDA_PREFIX'] == sys.prefix; sys.prefix"))
    assert "/runtimed-conda-" in prefix, prefix
    assert notebook.runtime.kernel.env_source == "conda:prewarmed", notebook.runtime.kernel.env_source
    pip = await ran(notebook, "import subprocess, sys; subprocess.call([sys.executable, '-m', 'pip', '--version'])")
    assert pip.stdout.startswith("pip ") and value(pip) == "0", "pip is there for installing from a cell"

    notebook = await declared(client, "declared.ipynb", ["cowsay", "six=1.16"])
    built = os.path.join(os.environ["HOME"], ".cache/runt/inline-envs")
    assert not os.path.exists(built) or not os.listdir(built), "nothing is built unasked"
    await notebook.approve_trust()
    await notebook.start()
    assert value(await ran(notebook, "import cowsay, six, sys; six.__version__")) == "'1.16.0'"
    assert "/inline-envs/" in value(await ran(notebook, "sys.prefix"))
    assert notebook.runtime.kernel.env_source == "conda:inline", notebook.runtime.kernel.env_source

    notebook = await declared(client, "impossible.ipynb", ["no-such-package"])
    await notebook.approve_trust()
    await refused(notebook.start(), "Failed to solve dependencies", "`no-such-package`")


async def environment_yml(client):
    """An environment.yml is held, approved, built where its name says, and used again."""
    directory = pathlib.Path(folder())
    dependencies = ["python>=3.9", "cowsay", {"pip": [f"./{wheel(directory)}"]}]
    file = project(directory, "lab", dependencies)
    notebook = await client.open_notebook(notebook_in(directory, "first"))
    await awaits_build(notebook, "declares conda env 'lab'")
    prefix = pathlib.Path.home() / ".conda/envs/lab"
    assert not prefix.exists(), "nothing is built unasked"
    assert await approve(notebook, file) == {"result": "ok"}
    await until(lambda: notebook.runtime.kernel.status in ("idle", "error"), "it is built")
    kernel = notebook.runtime.kernel
    assert kernel.env_source == "conda:env_yml", (kernel.env_source, kernel.error_details)
    seen = "import cowsay, lab_tools, os, sys; os.environ['CONDA_PREFIX'], sys.prefix, lab_tools.ANSWER"
    assert value(await ran(notebook, seen)) == str((str(prefix), str(prefix), 42))
    await notebook.stop_runtime()
    await notebook.disconnect()

    built = prefix.stat().st_ino
    notebook = await client.open_notebook(notebook_in(directory, "second"))
    assert value(await ran(notebook, seen)) == str((str(prefix), str(prefix), 42))
    assert notebook.runtime.kernel.env_source == "conda:env_yml"
    assert prefix.stat().st_ino == built, "it is the same environment"
    await notebook.stop_runtime()
    await notebook.disconnect()

    # The file comes to ask for something else than what is approved.
    file = project(directory, "lab", [*dependencies, "no-such-package"])
    notebook = await client.open_notebook(notebook_in(directory, "third"))
    await awaits_build(notebook, "declares conda env 'lab'")
    await notebook.disconnect()


async def impossible_yml(client):
    """What the solver says of an environment.yml is for a person to read, and names the package."""
    directory = pathlib.Path(folder())
    file = project(directory, "impossible", ["python>=3.9", "six=99"])
    notebook = await client.open_notebook(notebook_in(directory, "impossible"))
    await awaits_build(notebook, "declares conda env 'impossible'")
    assert await approve(notebook, file) == {"result": "ok"}
    await until(lambda: notebook.runtime.kernel.lifecycle == "Error", "it cannot be")
    kernel = notebook.runtime.kernel
    assert kernel.error_reason == "conda_env_build_failed", kernel.error_reason
    words = "Failed to create conda env 'impossible' from environment.yml: Failed to solve dependencies"
    assert kernel.error_details.startswith(words) and "`six`" in kernel.error_details, kernel.error_details
    await refused(notebook.start(), words, "`six`")
    assert not (pathlib.Path.home() / ".conda/envs/impossible").exists(), "nothing is left of it"


def wheel(directory):
    """A package of our own, for pip; its file's name."""
    name, info = "lab_tools-1.0-py3-none-any.whl", "lab_tools-1.0.dist-info"
    with zipfile.ZipFile(directory / name, "w") as file:
        file.writestr("lab_tools.py", "ANSWER = 42\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return name


def project(directory, name, dependencies):
    """An environment.yml; JSON is YAML as well."""
    file = directory / "environment.yml"
    file.write_text(json.dumps({"name": name, "channels": [CHANNEL], "dependencies": dependencies}))
    return file


def notebook_in(directory, name):
    path = directory / f"{name}.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}))
    return str(path)


async def awaits_build(notebook, words):
    await until(lambda: notebook.runtime.kernel.lifecycle == "AwaitingEnvBuild", "the user is asked first")
    assert words in notebook.runtime.kernel.error_details, notebook.runtime.kernel.error_details


async def approve(notebook, file):
    """Approves the project round the notebook, as applications do; the client has no call for that."""
    reader, writer = await asyncio.open_unix_connection(os.environ["RUNTIMED_SOCKET_PATH"])
    frame = lambda body: struct.pack(">I", len(body)) + body
    join = {"channel": "notebook_sync", "notebook_id": notebook.notebook_id}
    approval = {"action": "approve_project_environment", "project_file_path": str(file), "id": "1"}
    request = b"\x01" + json.dumps(approval).encode()
    writer.write(bytes.fromhex("c0de01ac04") + frame(json.dumps(join).encode()) + frame(request))
    try:
        await reader.readexactly(*struct.unpack(">I", await reader.readexactly(4)))
        while True:
            said = await reader.readexactly(*struct.unpack(">I", await reader.readexactly(4)))
            if said[0] == 2 and (answer := json.loads(said[1:])).pop("id") == "1":
                return answer
    finally:
        writer.close()


start(pooled, environment_yml, impossible_yml)
