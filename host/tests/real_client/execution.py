"""What a cell gives back: streams, values, errors, images, and what happens around it."""
from support import LIMIT, ran, refused, run, start, until, value


async def main(client):
    notebook = await client.create_notebook()
    await outputs(notebook)
    await queue(notebook)
    await interrupt(notebook)
    await records(client, notebook)
    await restart(notebook)


async def outputs(notebook):
    result = await ran(notebook, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert result.success and result.stdout == "out\n" and result.stderr == "err\n"
    assert value(result) == "42" and result.execution_count == 1

    result = await ran(notebook, "def f():\n    raise ValueError('no such luck')\nf()")
    assert not result.success
    assert (result.error.ename, result.error.evalue) == ("ValueError", "no such luck")
    assert any("line 2" in line or "raise ValueError" in line for line in result.error.traceback)

    png = "89504e470d0a1a0a" + "00" * 2000
    result = await ran(
        notebook,
        f"from IPython.display import display, Image, HTML, JSON\ndata = bytes.fromhex('{png}')\n"
        "display(Image(data, format='png'))\ndisplay(HTML('<b>bold</b>'))\ndisplay(JSON({'a': [1, None]}))",
    )
    image, html, json = result.display_data
    assert image.data["image/png"] == bytes.fromhex(png), "binary data arrives as the bytes that were sent"
    assert html.data["text/html"] == "<b>bold</b>"
    assert json.data["application/json"] == {"a": [1, None]}

    result = await ran(notebook, "x" * 5000 + " = 0\nprint('tab\\tand blanks  ')\nprint('y' * 5000)")
    assert result.stdout == "tab\tand blanks  \n" + "y" * 5000 + "\n", "nothing is wrapped, expanded or trimmed"
    result = await ran(notebook, "for i in range(100): print(f'\\r{i}%', end='')")
    assert result.stdout == "99%", "a progress line is what a terminal would show"
    result = await ran(
        notebook,
        "from IPython.display import clear_output\nfor i in range(3):\n    clear_output(wait=True)\n    print(i)",
    )
    assert result.stdout == "2\n"
    result = await ran(notebook, "h = display('one', display_id=True)\nh.update('two')")
    assert [o.data["text/plain"] for o in result.display_data] == ["'two'"]
    result = await ran(notebook, "input()")
    assert result.error.ename == "StdinNotImplementedError"


async def queue(notebook):
    for cell in list(notebook.cells):
        await cell.delete()
    cells = [await notebook.cells.create(f"q{i} = {i}\nq{i}") for i in range(5)]
    await notebook.cells.create("# not run", "markdown")
    executions = await notebook.queue_all()
    assert [e.cell_id for e in executions] == [c.id for c in cells]
    for i, execution in enumerate(executions):
        assert value(await execution.result(LIMIT)) == str(i)
    assert [c.outputs[0].data["text/plain"] for c in cells] == [str(i) for i in range(5)]

    await cells[1].set_source("1 / 0")
    executions = await notebook.queue_all()
    assert (await executions[0].result(LIMIT)).success
    failed = await executions[1].result(LIMIT)
    assert failed.error.ename == "ZeroDivisionError"
    for execution in executions[2:]:
        assert not (await execution.result(LIMIT)).success
        assert execution.status == "cancelled", "one failure cancels everything behind it"


async def interrupt(notebook):
    endless = await notebook.cells.create("while True:\n    print('.', end='', flush=True)")
    behind = await notebook.cells.create("never = 1")
    execution = await endless.execute()
    waiting = await behind.execute()
    await until(lambda: endless.outputs, "the loop prints")
    await notebook.interrupt()
    assert not (await execution.result(LIMIT)).success
    assert not (await waiting.result(LIMIT)).success and waiting.status == "cancelled"
    result = await ran(notebook, "'never' in globals()")
    assert value(result) == "False", "an interrupt clears the queue and leaves a working kernel"


async def records(client, notebook):
    cell = await notebook.cells.create("print('for later')\n'kept'")
    execution = await cell.execute()
    await execution.result(LIMIT)
    record = await client.get_execution_result(execution.execution_id)
    assert record.success and record.stdout == "for later\n" and value(record) == "'kept'"
    assert record.cell_id == cell.id
    await refused(client.get_execution_result("nope"), "Execution not found in durable store: nope")


async def restart(notebook):
    cell = await notebook.cells.create("kept = 1")
    assert (await run(cell)).success
    await notebook.restart()
    result = await ran(notebook, "'kept' in globals()")
    assert value(result) == "False" and result.execution_count == 1
    await notebook.stop_runtime()
    await until(lambda: notebook.runtime.kernel.status == "shutdown", "the kernel is shut down")
    assert value(await ran(notebook, "2 + 2")) == "4", "running a cell starts a kernel again"


start(main)
