"""A third party's provider: its pool serves new notebooks; what a notebook declares for it needs approval."""
import json
import os

from support import folder, ran, start, until, value

DECLARED = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"runt": {"venv": {"dependencies": ["cowsay"], "requires-python": ">=3.10"}}},
    "cells": [],
}


async def main(client):
    notebook = await client.create_notebook()
    prefix = value(await ran(notebook, "import sys; sys.prefix"))
    assert "/runtimed-venv-" in prefix, prefix
    assert notebook.runtime.kernel.env_source == "venv:prewarmed", notebook.runtime.kernel.env_source
    pip = await ran(notebook, "import subprocess, sys; subprocess.call([sys.executable, '-m', 'pip', '--version'])")
    assert pip.stdout.startswith("pip ") and value(pip) == "0", "pip is there for installing from a cell"

    path = os.path.join(folder(), "declared.ipynb")
    with open(path, "w") as f:
        json.dump(DECLARED, f)
    notebook = await client.open_notebook(path)
    await until(lambda: notebook.runtime.kernel.lifecycle == "AwaitingTrust", "the user is asked first")
    built = os.path.join(os.environ["HOME"], ".cache/runt/inline-envs")
    assert not os.path.exists(built) or not os.listdir(built), "nothing is built unasked"
    await notebook.approve_trust()
    await notebook.start()
    assert value(await ran(notebook, "import cowsay; cowsay.__name__")) == "'cowsay'"
    assert notebook.runtime.kernel.env_source == "venv:inline", notebook.runtime.kernel.env_source


start(main)
