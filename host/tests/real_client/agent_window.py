"""The other side of `agent.py`: the unmodified client in a process of its own, with the same notebook open."""
import sys

from support import LIMIT, start, until


def cell_with(notebook, words):
    return next((cell for cell in notebook.cells if words in cell.source), None)


async def main(client):
    notebook = await client.join_notebook(sys.argv[1], peer_label="window")
    print("joined", flush=True)
    await until(lambda: cell_with(notebook, "# from the agent"), "the agent's cell arrives")
    cell = cell_with(notebook, "# from the agent")
    await until(lambda: cell.outputs and cell.outputs[0].text == "agent\n", "and its output")
    assert "Test-Agent" in [label for _, label in notebook.peers], notebook.peers
    mine = await notebook.cells.create("# from the window\nprint('window', flush=True)")
    assert (await mine.run(LIMIT)).success
    await until(lambda: not cell_with(notebook, "# from the agent"), "the agent's deletion arrives")


start(main)
