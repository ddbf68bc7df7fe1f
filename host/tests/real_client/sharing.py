"""Two clients in one notebook see each other's work as it happens."""
from support import LIMIT, refused, start, until


async def main(client):
    notebook = await client.create_notebook()
    cell = await notebook.cells.create("shared = 1")
    other = await client.join_notebook(notebook.notebook_id, peer_label="second")
    copy = other.cells.get_by_id(cell.id)
    assert copy.source == "shared = 1"

    await copy.set_source("shared = 2\nprint(shared)")
    await until(lambda: cell.source == copy.source, "an edit of the second client arrives at the first")
    new = await notebook.cells.create("from the first")
    await until(lambda: new.id in other.cells, "a cell of the first client arrives at the second")
    await cell.append("\n# first")
    await copy.splice(0, 0, "# second\n")
    both = "# second\nshared = 2\nprint(shared)\n# first"
    await until(lambda: cell.source == copy.source == both, "edits at one time are both kept")
    await new.delete()
    await until(lambda: new.id not in other.cells, "a deletion arrives")

    execution = await copy.execute()
    assert (await execution.result(LIMIT)).stdout == "2\n"
    await until(lambda: cell.outputs and cell.outputs[0].text == "2\n", "outputs arrive at everybody")
    assert cell.execution_count == 1

    await until(lambda: any(label == "second" for _, label in notebook.peers), "the first sees the second")
    rooms = [r for r in await client.list_active_notebooks() if r.notebook_id == notebook.notebook_id]
    assert len(rooms) == 1 and rooms[0].active_peers == 2 and rooms[0].has_runtime
    await other.disconnect()
    await until(lambda: all(label != "second" for _, label in notebook.peers), "the second is seen leaving")

    await refused(
        client.join_notebook("00000000-0000-4000-8000-000000000000"), "no longer available (not found or evicted)"
    )


start(main)
