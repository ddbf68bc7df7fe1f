"""A client that joins after the daemon changed, and finds what ran meanwhile.

Arguments: the notebook's id, how many numbers were printed, and what cell `pid` has shown.
"""
import sys

from support import run, start, value

notebook_id, numbers, who = sys.argv[1:]


async def main(client):
    notebook = await client.join_notebook(notebook_id)
    cells = {cell.id: cell for cell in notebook.cells}
    text = "".join(output.text for output in cells["counts"].outputs)
    assert text == "".join(f"{number}\n" for number in range(int(numbers))), text
    assert value(await run(cells["pid"])) == who


start(main)
