"""The daemon's own answers: ping, status, rooms, and a clean end."""
from support import start, until


async def main(client):
    assert await client.ping() and await client.is_running()
    status = await client.status()
    assert status["uv_available"] >= 0 and status["conda_available"] == 0, status
    before = len(await client.list_active_notebooks())
    notebook = await client.create_notebook()
    rooms = await client.list_active_notebooks()
    assert len(rooms) == before + 1 and notebook.notebook_id in [r.notebook_id for r in rooms]
    await until(lambda: notebook.runtime.kernel.status == "idle", "the kernel starts by itself")
    await client.flush_pool()
    assert (await client.ping()) is True


start(main)
