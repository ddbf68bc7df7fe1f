"""The unmodified client, which finds the daemon by itself: runs a line in the notebook at a path, and prints its result."""
import asyncio
import os
import sys

import runtimed

# Seconds. An environment may have to be made first.
LIMIT = 300


async def main(path, source):
    client = runtimed.Client()
    notebook = await client.open_notebook(path)
    cell = await notebook.cells.create(source)
    result = await cell.run(LIMIT)
    print(*[it.data["text/plain"] for it in result.outputs if it.output_type == "execute_result"])


asyncio.run(main(*sys.argv[1:]))
sys.stdout.flush()
# The client may crash in the interpreter's own shutdown.
os._exit(0)
