"""Kernels other than Python, installed as Jupyter has it: a notebook names one, and it does what Python does.

There is no Python to run, and the kernelspec `broken` is broken.
"""
import json
import pathlib

from support import LIMIT, folder, ran, refused, run, saved, start, until, validate


def write(name, kernelspec, **metadata):
    """A notebook file with one cell."""
    path = pathlib.Path(folder(), name)
    cell = {"cell_type": "code", "execution_count": None, "id": "first", "metadata": {}, "outputs": [], "source": "echo"}
    metadata = {"kernelspec": kernelspec, **metadata}
    path.write_text(json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


async def idle(notebook):
    await until(lambda: notebook.runtime.kernel.status == "idle", "the kernel is up")


async def bash(client):
    """What a notebook file names, by its name in another case and without a language."""
    path = write("bash.ipynb", {"name": "Bash", "display_name": "Bash"})
    notebook = await client.open_notebook(str(path))
    await idle(notebook)
    kernel = notebook.runtime.kernel
    assert (kernel.name, kernel.language, kernel.env_source) == ("bash", "bash", "bash")

    result = await ran(notebook, "echo out; echo err >&2; pwd; X=kept")
    assert result.success and result.stdout == f"out\nerr\n{path.parent}\n", result.stdout
    result = await ran(notebook, 'echo "$X $ADDED ${NTERACT_API_KEY-gone}"')
    assert result.stdout == "kept /added/kept gone\n", result.stdout
    # Bash itself has the size of the terminal that its kernel made for it.
    result = await ran(notebook, "tr '\\0' '\\n' </proc/$PPID/environ | grep -Ex 'COLUMNS=128|LINES=100' | sort")
    assert result.stdout == "COLUMNS=128\nLINES=100\n", result.stdout
    result = await ran(notebook, "no-such-command")
    assert not result.success and "not found" in result.stdout + result.stderr
    await interrupted(notebook, "echo on; sleep 600", "echo still here", "still here\n")

    before = (await ran(notebook, "echo $PPID")).stdout
    await notebook.restart()
    await idle(notebook)
    result = await ran(notebook, 'echo "X=$X"; echo $PPID')
    assert result.stdout.startswith("X=\n") and result.stdout != f"X=\n{before}" and result.execution_count == 1

    last = notebook.cells.ids[-1]
    await saved(notebook, lambda: "X=\\n" in path.read_text())
    validate(path)
    file = json.loads(path.read_text())
    assert file["metadata"]["kernelspec"] == {"name": "Bash", "display_name": "Bash"}, "what the file says stays"
    assert [cell for cell in file["cells"] if cell["id"] == last][0]["outputs"][0]["name"] == "stdout"

    # The kernel dies: it is said how, and the next one is the same kind.
    result = await ran(notebook, "kill -9 $PPID")
    assert not result.success
    await until(lambda: notebook.runtime.kernel.status == "error", "the end is noticed")
    assert "signal 9" in notebook.runtime.kernel.error_details
    # The client launches one by itself.
    assert (await ran(notebook, "echo again")).stdout == "again\n"
    await notebook.stop_runtime()
    await notebook.disconnect()


async def interrupted(notebook, endless, then, said):
    """Interrupts `endless`, which prints first, and goes on."""
    cell = await notebook.cells.create(endless)
    execution = await cell.execute()
    await until(lambda: cell.outputs, "it runs")
    await notebook.interrupt()
    assert not (await execution.result(LIMIT)).success
    assert (await ran(notebook, then)).stdout == said


async def created(client):
    """A new notebook for an installed kernel says so in its metadata; one for an unknown kernel gets the default."""
    notebook = await client.create_notebook("bash")
    await idle(notebook)
    assert (await run(await notebook.cells.create("echo made"))).stdout == "made\n"
    path = pathlib.Path(folder(), "made.ipynb")
    await notebook.save_as(str(path))
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["kernelspec"] == {"name": "bash", "display_name": "Bash", "language": "bash"}
    assert metadata["language_info"] == {"name": "bash"} and "uv" not in metadata["runt"]
    await notebook.stop_runtime()
    await notebook.disconnect()


async def deno(client):
    notebook = await client.create_notebook(runtime="deno")
    kernel = notebook.runtime.kernel
    await idle(notebook)
    assert (kernel.name, kernel.language, kernel.env_source) == ("deno", "deno", "deno")
    result = await ran(notebook, "const x: number = 6;\nconsole.log('out');\nconsole.error('err');\nx * 7")
    assert result.success and result.stdout == "out\n" and result.stderr == "err\n", result
    value = [output.data["text/plain"] for output in result.outputs if output.output_type == "execute_result"]
    assert value == ["\x1b[33m42\x1b[39m"], value
    result = await ran(notebook, "await Deno.jupyter.display({'text/html': '<b>bold</b>'}, {raw: true})")
    assert [o.data["text/html"] for o in result.display_data] == ["<b>bold</b>"]
    result = await ran(notebook, "throw new TypeError('no such luck')")
    assert not result.success and "no such luck" in result.error.evalue, result.error
    result = await ran(notebook, "console.log(Deno.env.get('COLUMNS'), Deno.env.get('NTERACT_API_KEY'))")
    assert result.stdout == "128 undefined\n", result.stdout
    await interrupted(notebook, "console.log('on');\nwhile (true) {}", "console.log(x)", "6\n")
    # Deno goes on waiting for a promise, whatever it is asked; a restart helps.
    cell = await notebook.cells.create("console.log('on');\nawait new Promise((done) => setTimeout(done, 600_000))")
    execution = await cell.execute()
    await until(lambda: cell.outputs, "it waits")
    await notebook.interrupt()
    assert not (await execution.result(LIMIT)).success
    await notebook.restart()
    await idle(notebook)
    result = await ran(notebook, "typeof x")
    assert "undefined" in result.outputs[0].data["text/plain"]
    path = pathlib.Path(folder(), "deno.ipynb")
    await notebook.save_as(str(path))
    validate(path)
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["kernelspec"] == {"name": "deno", "display_name": "Deno", "language": "typescript"}
    await notebook.stop_runtime()
    await notebook.disconnect()


async def deno_told(client):
    """What a notebook says about Deno holds from its first cell on; what it says since is shown, and a restart brings it."""
    home = pathlib.Path(folder())
    (home / "beside.ts").write_text("export const beside = 'beside';\n")
    (home / "maps").mkdir()
    (home / "maps/part.ts").write_text("export const part = 'lab';\n")
    (home / "maps/lab.ts").write_text("import { part } from './part.ts';\nexport const lab = part;\n")
    (home / "maps/map.json").write_text(json.dumps({"imports": {"lab": "./lab.ts"}}))
    said = {"permissions": ["--allow-read", "--allow-sys"], "import_map": "maps/map.json"}
    kernelspec = {"name": "deno", "display_name": "Deno", "language": "typescript"}
    path = write(str(home / "told.ipynb"), kernelspec, runt={"deno": said})
    notebook = await client.open_notebook(str(path))
    await idle(notebook)

    async def says(code, text, success=True):
        result = await ran(notebook, code)
        said = result.stdout if success else result.error.evalue
        assert result.success == success and text in said, (code, result)

    await says("import { lab } from 'lab';\nimport { beside } from './beside.ts';\nconsole.log(lab, beside)", "lab beside")
    await says(f"console.log((await import('../{home.name}/beside.ts')).beside)", "beside")
    await says(f"console.log((await import('{home}/maps/part.ts')).part)", "lab")
    await says("console.log(Deno.cwd(), Deno.readTextFileSync('beside.ts').length)", f"{home.resolve()} 32")
    await says("Deno.env.get('HOME')", "env access", success=False)
    await says("new Deno.Command('true').outputSync()", "run access", success=False)
    await says("console.log((await Deno.permissions.request({ name: 'net' })).state)", "denied")
    assert notebook.runtime.env.in_sync

    file = json.loads(path.read_text())
    file["metadata"]["runt"]["deno"]["permissions"] += ["--allow-env"]
    path.write_text(json.dumps(file))
    await until(lambda: notebook.runtime.env.deno_changed, "the change is shown")
    assert not notebook.runtime.env.in_sync
    result = await notebook.sync_environment()
    assert not result.success and result.needs_restart and "require a kernel restart" in result.error, result.error
    await notebook.restart()
    await idle(notebook)
    await until(lambda: notebook.runtime.env.in_sync, "it runs with what it says")
    await says("console.log(Deno.env.get('COLUMNS'))", "128")

    # What cannot be passed on is said, and nothing runs with more than it was given.
    file["metadata"]["runt"]["deno"]["permissions"] = ["--allow-net=example.org"]
    path.write_text(json.dumps(file))
    await until(lambda: notebook.runtime.env.deno_changed, "the change is shown")
    await refused(notebook.restart(), "for some things only: `--allow-net=example.org`")
    await notebook.disconnect()


async def not_there(client):
    """A kernel that is not installed is named, with those that are."""
    path = write("r.ipynb", {"name": "ir", "display_name": "R", "language": "R"})
    before = path.read_bytes()
    notebook = await client.open_notebook(str(path))
    await until(lambda: notebook.runtime.kernel.status == "error", "it is said")
    details = notebook.runtime.kernel.error_details
    for part in ("no kernel `ir`", "the notebook is as it was", "bash (Bash)", "deno (Deno)", "python (Python 3)"):
        assert part in details, details
    await refused(notebook.start("fortran"), "no kernel `fortran`", "bash (Bash)")
    await refused(notebook.start("broken"), "broken/kernel.json` cannot be used", "Mend that file")
    assert path.read_bytes() == before
    await notebook.start("bash")
    assert (await ran(notebook, "echo here")).stdout == "here\n"
    await notebook.stop_runtime()
    await notebook.disconnect()


start(bash, created, deno, deno_told, not_there)
