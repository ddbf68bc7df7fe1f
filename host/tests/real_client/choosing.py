"""Which environment a notebook gets: by its label, and in the interpreter that the label promises."""
import json
import os
import pathlib

from support import LIMIT, folder, ran, run, start, until, value

PREFIX = "import sys; sys.prefix"
BLOCK = "# /// script\n# requires-python = \">=3.10\"\n# dependencies = [\"cowsay\"]\n# ///\n"


async def main(client):
    await pooled_and_kept(client)
    await script(client)
    await broken_script(client)
    await hot(client)
    await inline(client)
    await project(client)


def write(name, *sources, directory=None, **metadata):
    """A notebook file with these cells."""
    path = pathlib.Path(directory or folder(), name)
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"cell-{at}", "metadata": {}, "outputs": [], "source": source}
        for at, source in enumerate(sources or [""])
    ]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, **metadata}
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def kernel(notebook):
    return notebook.runtime.kernel


async def idle(notebook):
    await until(lambda: kernel(notebook).status in ("idle", "error"), "the kernel is up")
    assert kernel(notebook).status == "idle", kernel(notebook).error_details


async def closed(notebook, prefix=None):
    """Ends the kernel, and waits until the environment is given back, as when nobody comes back for long enough."""
    await notebook.stop_runtime()
    await notebook.disconnect()
    if prefix:
        lease = pathlib.Path(prefix.strip("'"), "lease.json")
        await until(lambda: not lease.exists(), "nobody has the environment any more")
        assert lease.parent.exists(), "it is kept"


async def held(notebook):
    await until(lambda: kernel(notebook).lifecycle == "AwaitingTrust", "the user is asked first")


async def pooled_and_kept(client):
    """A notebook that declares nothing has one of the pool, and the same one when it is opened again."""
    path = write("plain.ipynb", "")
    notebook = await client.open_notebook(str(path))
    await idle(notebook)
    assert kernel(notebook).env_source == "uv:prewarmed"
    prefix = value(await ran(notebook, PREFIX))
    assert "/runtimed-uv-" in prefix, prefix
    await closed(notebook, prefix)
    assert "env_id" not in path.read_text()

    notebook = await client.open_notebook(str(path))
    assert value(await ran(notebook, PREFIX)) == prefix
    await closed(notebook)


async def script(client):
    """A script block is held, then runs after approval, with the Python it asks for."""
    path = write("script.ipynb", "1 + 1", BLOCK + "import cowsay\ncowsay.__name__")
    notebook = await client.open_notebook(str(path))
    await held(notebook)
    built = pathlib.Path(os.environ["HOME"], ".cache/runt/inline-envs")
    before = set(os.listdir(built)) if built.exists() else set()
    await notebook.approve_trust()
    await notebook.start()
    assert value(await run(notebook.cells.get_by_id("cell-1"))) == "'cowsay'"
    assert kernel(notebook).env_source == "uv:pep723", kernel(notebook).env_source
    prefix = value(await ran(notebook, PREFIX)).strip("'")
    assert pathlib.Path(prefix).name in set(os.listdir(built)) - before, prefix
    await closed(notebook)

    # Once allowed, the next one with the same block simply runs, in the same environment.
    notebook = await client.open_notebook(str(write("again.ipynb", BLOCK)))
    assert value(await ran(notebook, PREFIX)).strip("'") == prefix
    await closed(notebook)


async def broken_script(client):
    notebook = await client.open_notebook(str(write("two.ipynb", BLOCK, BLOCK)))
    await until(lambda: kernel(notebook).lifecycle == "Error", "two blocks are one too many")
    assert kernel(notebook).error_reason == "environment_prepare_failed", kernel(notebook).error_reason
    details = kernel(notebook).error_details
    assert "multiple # /// script blocks found" in details and "cell 2" in details, details
    await notebook.disconnect()

    block = BLOCK.replace("cowsay", "this-package-does-not-exist-zzz9")
    notebook = await client.open_notebook(str(write("unknown.ipynb", "", block)))
    await held(notebook)
    await notebook.approve_trust()
    await until(lambda: kernel(notebook).lifecycle == "Error", "there is no such package")
    details = kernel(notebook).error_details
    assert "Failed to prepare PEP 723 environment: Failed to install dependencies" in details, details
    assert "`this-package-does-not-exist-zzz9` in the script block of cell 2" in details, details
    await notebook.disconnect()


async def inline(client):
    path = write("inline.ipynb", "", runt={"uv": {"dependencies": ["xmltodict"]}})
    notebook = await client.open_notebook(str(path))
    await held(notebook)
    await notebook.approve_trust()
    await notebook.start()
    assert value(await ran(notebook, "import xmltodict; xmltodict.__name__")) == "'xmltodict'"
    assert kernel(notebook).env_source == "uv:inline"
    assert "/inline-envs/" in value(await ran(notebook, PREFIX))
    await closed(notebook)


async def project(client):
    """The nearest project; what the notebook declares beside it is added to its file."""
    directory = pathlib.Path(folder())
    deep = directory / "notebooks"
    deep.mkdir()
    file = directory / "pyproject.toml"
    file.write_text("[project]\nname = \"lab\"\nversion = \"0\"\nrequires-python = \">=3.10\"\ndependencies = [\"six\"]\n")
    notebook = await client.open_notebook(str(write("in.ipynb", "", directory=deep)))
    await idle(notebook)
    assert kernel(notebook).env_source == "uv:pyproject", kernel(notebook).env_source
    context = lambda: json.loads(notebook.runtime.project_context_json)
    await until(lambda: context()["state"].lower() == "detected", "the project is shown")
    assert context()["project_file"]["relative_to_notebook"] == "../pyproject.toml", context()
    assert context()["parsed"]["dependencies"] == ["six"], context()
    assert value(await ran(notebook, "import six, os; os.getcwd()")).strip("'") == str(deep.resolve())
    assert (directory / ".venv").exists()
    assert value(await ran(notebook, "import six; six.__file__")).strip("'").startswith(str(directory.resolve())), "of the project"
    cell = await notebook.cells.create("while True: pass")
    execution = await cell.execute()
    await until(lambda: kernel(notebook).status == "busy", "it runs")
    await notebook.interrupt()
    assert not (await execution.result(LIMIT)).success

    # A package that the notebook names goes into the file; the next kernel has it.
    await notebook.add_dependency("cowsay")
    await until(lambda: notebook.runtime.env.added == ["cowsay"], "what is missing is shown")
    result = await notebook.sync_environment()
    assert result.needs_restart and "Updated project file (+cowsay)" in result.error, result.error
    await until(lambda: any(d.startswith("cowsay") for d in context()["parsed"]["dependencies"]), "the file is looked at again")
    await notebook.restart()
    assert value(await ran(notebook, "import cowsay; cowsay.__name__")) == "'cowsay'"
    await until(lambda: notebook.runtime.env.in_sync, "as the file says")
    await closed(notebook)


async def hot(client):
    """A package that is declared while the kernel runs is installed into what it runs in, and kept with it."""
    path = write("hot.ipynb", "")
    notebook = await client.open_notebook(str(path))
    await idle(notebook)
    prefix = value(await ran(notebook, PREFIX))
    await notebook.add_dependency("cowsay")
    env = lambda: notebook.runtime.env
    await until(lambda: env().added == ["cowsay"] and not env().in_sync, "what is missing is shown")
    result = await notebook.sync_environment()
    assert (result.success, result.synced_packages) == (True, ["cowsay"]), result.error
    assert value(await ran(notebook, "import cowsay; cowsay.__name__")) == "'cowsay'"
    await until(lambda: env().in_sync and not env().added, "nothing is missing any more")
    assert kernel(notebook).env_source == "uv:prewarmed"

    # Opened again, it has both.
    await notebook.save()
    await closed(notebook, prefix)
    notebook = await client.open_notebook(str(path))
    await idle(notebook)
    assert kernel(notebook).env_source == "uv:prewarmed", kernel(notebook).env_source
    assert value(await ran(notebook, "import cowsay, sys; sys.prefix")) == prefix
    await until(lambda: env().in_sync, "as it was")

    await notebook.remove_dependency("cowsay")
    await until(lambda: env().removed == ["cowsay"], "what is too much is shown")
    result = await notebook.sync_environment()
    assert not result.success and result.needs_restart and "require a kernel restart" in result.error, result.error
    await notebook.disconnect()


start(main)
