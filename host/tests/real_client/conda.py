"""Conda: its pool serves new notebooks; what a notebook declares needs approval, channels too; what cannot be solved
says which package it is."""
import json
import os

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


async def main(client):
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


start(main)
