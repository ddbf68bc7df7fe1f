"""Cells and their sources, as one client edits them."""
from support import start, until


async def main(client):
    notebook = await client.create_notebook()
    assert len(notebook.cells) == 1, "a new notebook has one starter cell"

    first = await notebook.cells.create("a = 1")
    last = await notebook.cells.create("# notes", "markdown")
    middle = await notebook.cells.insert_at(1, "b = 2")
    starter = notebook.cells.get_by_index(0)
    assert notebook.cells.ids == [starter.id, middle.id, first.id, last.id]

    await starter.move_after(last)
    assert notebook.cells.ids == [middle.id, first.id, last.id, starter.id]
    await starter.move_after(None)
    assert notebook.cells.ids[0] == starter.id
    await starter.delete()
    # The client's own view may be a moment behind.
    await until(lambda: notebook.cells.ids == [middle.id, first.id, last.id], "the cell is gone")

    await first.set_source("a = 10\nprint(a)")
    await first.append("\nprint('ä𝒳')")
    await first.splice(4, 2, "7")
    assert first.source == "a = 7\nprint(a)\nprint('ä𝒳')"
    await last.set_type("raw")
    assert last.cell_type == "raw"
    await first.set_tags(["keep", "me"])
    await first.set_source_hidden(True)
    assert first.tags == ["keep", "me"] and first.source_hidden

    # What the daemon has is what a newcomer gets.
    other = await client.join_notebook(notebook.notebook_id)
    assert other.cells.ids == notebook.cells.ids
    copy = other.cells.get_by_id(first.id)
    assert (copy.source, copy.tags, copy.source_hidden) == (first.source, first.tags, True)
    assert other.cells.get_by_id(last.id).cell_type == "raw"


start(main)
