"""Everything the client's package offers, by two clients at once and by five.

Each client does all that concerns a cell in cells of its own, all of them at the same time in one notebook;
what concerns the notebook as a whole comes after, once, and everybody sees it. In the end every public name
of the package was used, or is listed in `surface.py` with the reason why it cannot be.
"""
import asyncio
import os
import time

import runtimed

import surface
from support import LIMIT, folder, refused, start, until, value

PNG = "89504e470d0a1a0a" + "00" * 2000


async def main(client):
    surface.watch()
    await package(client)
    for count in (2, 5):
        await together(client, count)
    assert not surface.unused(), f"never used: {surface.unused()}"


async def package(client):
    assert runtimed.default_socket_path() == os.environ["RUNTIMED_SOCKET_PATH"]
    assert runtimed.socket_path_for_channel("stable").endswith("/runt/runtimed.sock")
    assert runtimed.version("runtimed") == runtimed.__version__
    try:
        runtimed.version("no-such-package")
    except runtimed.PackageNotFoundError:
        pass
    await refused(client.join_notebook("00000000-0000-4000-8000-000000000000"), "no longer available")
    surface.used |= {"default_socket_path", "socket_path_for_channel", "version", "PackageNotFoundError", "RuntimedError"}
    for constants in (runtimed.KERNEL_ERROR_REASON, runtimed.KERNEL_STATUS):
        for name in surface.members(constants):
            assert isinstance(getattr(constants, name), str)
            surface.note(constants.__name__, name)
    assert await client.ping() and await client.is_running() and (await client.status())["uv_available"] >= 0
    await client.flush_pool()


async def together(client, count):
    """One notebook and `count` clients of it, each with a connection of its own."""
    first = await client.create_notebook(peer_label="client 0", working_dir=folder())
    clients = [client] + [runtimed.Client(peer_label=f"client {i}") for i in range(1, count)]
    books = [first] + [await one.join_notebook(first.notebook_id) for one in clients[1:]]
    await until(lambda: first.runtime.kernel.status == "idle", "the kernel is up")
    await asyncio.gather(*(cells(book, i) for i, book in enumerate(books)))
    await asyncio.gather(*(executions(clients[i], book, i) for i, book in enumerate(books)))
    await asyncio.gather(*(presence(book, i, count) for i, book in enumerate(books)))
    await one_cell(books)
    await the_queue(books)
    await dependencies(books)
    await the_runtime(books)
    await asyncio.gather(*(private(book) for book in books))
    await rooms(clients, books)
    await files(books)
    for one, book in zip(clients[1:], books[1:]):
        await book.disconnect()
        assert not book.is_connected
        await one.close()
    await until(lambda: not others(first), "everybody is seen leaving")
    await first.stop_runtime()
    await first.disconnect()


def others(book):
    return sorted(label for _, label in book.peers if label.startswith("client"))


async def agree(books, what):
    """Waits until everybody sees the same cells, sources and outputs."""

    def seen(book):
        return [(c.id, c.source, c.cell_type, c.metadata, [o.text for o in c.outputs]) for c in book.cells]

    await until(lambda: all(seen(book) == seen(books[0]) for book in books), what)


async def cells(book, i):
    """Everything that can be done to a cell without a kernel."""
    a = await book.cells.create(f"a_{i} = 1")
    b = await book.cells.insert_at(0, f"# notes of {i}", "markdown")
    assert book.cells.get_by_id(a.id).id == book.cells[a.id].id == a.id
    assert a.id in book.cells and a.id in book.cells.ids and len(book.cells) >= 3
    assert book.cells.get_by_index(-1).id in [c.id for c in book.cells]
    assert [c.id for c in book.cells.find(f"a_{i} =")] == [a.id]
    await a.set_source(f"a_{i} = 10\nprint(a_{i})")
    await a.append(f"\nprint('ä𝒳{i}')")
    await a.splice(len(f"a_{i} = "), 2, "7")
    # What a client reads of itself may be a moment old while others' edits come in.
    await until(lambda: a.source == f"a_{i} = 7\nprint(a_{i})\nprint('ä𝒳{i}')", "the edits are there")
    await b.set_type("raw")
    await until(lambda: b.cell_type == "raw", "the type is another")
    await b.move_after(a)

    def in_order():
        ids = book.cells.ids
        return ids.index(b.id) > ids.index(a.id)

    await until(in_order, "the cell has moved")
    await b.move_after(None)
    await a.set_tags(["keep", str(i)])
    await a.set_source_hidden(True)
    await a.set_outputs_hidden(True)
    await until(lambda: a.tags == ["keep", str(i)] and a.source_hidden and a.outputs_hidden, "the metadata are there")
    assert a.metadata["tags"] == ["keep", str(i)]
    cell = a.snapshot()
    assert (cell.id, cell.cell_type, cell.source, cell.tags) == (a.id, "code", a.source, a.tags)
    assert cell.is_source_hidden and cell.is_outputs_hidden and not cell.is_collapsed
    assert cell.metadata["tags"] == a.tags and '"tags"' in cell.metadata_json
    assert cell.position and cell.outputs == [] and cell.execution_count is None is a.execution_count
    await b.delete()
    await until(lambda: b.id not in book.cells, "the cell is gone")


async def executions(client, book, i):
    """Everything around the execution of a cell; a kernel runs them one after the other."""
    cell = book.cells.find(f"a_{i} = 7")[0]
    result = await cell.run(LIMIT)
    assert result.success and result.stdout == f"7\nä𝒳{i}\n" and result.stderr == "" and result.error is None
    assert result.cell_id == cell.id and result.execution_count == cell.execution_count
    assert cell.outputs[0].output_type == "stream" and cell.outputs[0].name == "stdout"
    await cell.clear_outputs()
    await until(lambda: cell.outputs == [] and cell.execution_count is None, "the outputs are gone")

    rich = await book.cells.create(
        "import sys\nfrom IPython.display import Image, display\n"
        f"print('err', file=sys.stderr)\ndisplay(Image(bytes.fromhex('{PNG}'), format='png'))\n{i}"
    )
    execution = await rich.queue()
    assert execution.cell_id == rich.id and not execution.done or execution.status in ("done", "running")
    result = await execution
    assert result.execution_id == execution.execution_id and result.stderr == "err\n" and value(result) == str(i)
    image = result.display_data[0]
    assert image.data["image/png"] == bytes.fromhex(PNG)
    assert list(image.blob_urls) == list(image.blob_paths) == ["image/png"]
    assert os.path.getsize(image.blob_paths["image/png"]) == len(PNG) // 2
    assert [o.execution_count for o in result.outputs if o.output_type == "execute_result"] == [result.execution_count]
    assert execution.done and execution.success and execution.execution_count == result.execution_count
    record = await client.get_execution_result(execution.execution_id)
    assert record.success and record.cell_id == rich.id and value(record) == str(i)

    slow = await book.cells.create(f"import time\nfor n in range(3):\n    print({i}, n, flush=True)\n    time.sleep(0.1)")
    execution = await slow.execute()
    last = None
    async for progress in execution.watch(LIMIT):
        last = surface.look(progress)
        assert last.cell_id == slow.id and last.execution_id == execution.execution_id
    assert last.terminal and last.success and last.status == "done" and last.terminal_reason is not False
    assert last.stdout == "".join(f"{i} {n}\n" for n in range(3)) and last.stderr == "" and last.outputs
    assert last.execution_count == execution.execution_count
    await execution.wait(LIMIT)


async def presence(book, i, count):
    """Everybody sees everybody, and where they are."""
    cell = book.cells.find(f"a_{i} = 7")[0]
    await book.presence.focus(cell.id)
    await book.presence.set_selection(cell.id, 0, 0, 1, 2)
    await book.presence.set_cursor(cell.id, 1, i)

    async def cursors():
        return {(label, line, column) for _, label, _, line, column in await book.presence.get_remote_cursors()}

    wanted = {(f"client {n}", 1, n) for n in range(count) if n != i}
    end = time.monotonic() + LIMIT
    while not wanted <= await cursors():
        assert time.monotonic() < end, f"client {i} sees {await cursors()} and {others(book)}, not {wanted}"
        await asyncio.sleep(0.005)
    assert others(book) == sorted(f"client {n}" for n in range(count) if n != i)
    # Until everybody has seen everybody.
    await book.cells.create(f"seen by {i}", "raw")
    await until(lambda: len(book.cells.find("seen by ")) == count, f"client {i} sees that everybody has seen the others")
    await book.presence.clear_selection()
    await book.presence.clear_cursor()
    while left := await cursors():
        assert time.monotonic() < end, f"client {i} still sees {left}"
        await asyncio.sleep(0.005)


async def one_cell(books):
    """Edits of everybody in one cell are all kept."""
    cell = await books[0].cells.create("")
    await until(lambda: all(cell.id in book.cells for book in books), "everybody has the cell")
    for turn in range(5):
        await asyncio.gather(*(book.cells[cell.id].append(f"<{i}.{turn}>") for i, book in enumerate(books)))
    await agree(books, "everybody sees the same")
    words = [f"<{i}.{turn}>" for i in range(len(books)) for turn in range(5)]
    assert all(word in cell.source for word in words) and len(cell.source) == sum(map(len, words)), cell.source
    await cell.delete()


async def the_queue(books):
    """What one client queues, everybody sees run and end."""
    first, last = books[0], books[-1]
    for cell in list(first.cells):
        await cell.delete()
    loop = await first.cells.create("print('on', flush=True)\nwhile True: pass")
    behind = await first.cells.create("never = 1")
    queued = await first.queue_all()
    assert [e.cell_id for e in queued] == [loop.id, behind.id]
    # An interrupt that comes before the kernel has begun would be lost on it.
    await until(lambda: loop.outputs and last.runtime.queue.executing is not None, "everybody sees what runs")
    executing = last.runtime.queue.executing
    assert executing.execution_id == queued[0].execution_id and executing.cell_id in (loop.id, None), executing.cell_id
    assert [entry.execution_id for entry in last.runtime.queue.queued] == [queued[1].execution_id]
    view = last.execution_view
    pointers = {p.cell_id: p.execution_id for p in view.cell_pointer_changes}
    assert pointers[loop.id] == queued[0].execution_id and view.removed_execution_ids == []
    assert view.queue.executing_execution_id == queued[0].execution_id
    assert view.queue.queued_execution_ids == [queued[1].execution_id]
    assert view.queue.notebook.executing_cell_id == loop.id and view.queue.notebook.queued_cell_ids == [behind.id]
    await last.interrupt()
    assert not (await queued[0].result(LIMIT)).success and not (await queued[1].result(LIMIT)).success
    assert queued[1].status == "cancelled"
    await until(lambda: len(loop.outputs) == 2, "the kernel says what it was interrupted in")
    failed = loop.outputs[1]
    assert failed.ename == "KeyboardInterrupt" and failed.traceback and failed.evalue == ""
    shots = {u.execution_id: u.snapshot for u in first.execution_view.execution_upserts}
    shot = shots[queued[0].execution_id]
    assert (shot.status, shot.success) == ("error", False) and len(shot.output_ids) == 2 and shot.execution_count
    assert "client" in shot.submitted_by_actor_label or "agent:" in shot.submitted_by_actor_label

    execution = await loop.execute()
    await until(lambda: execution.status == "running" and len(loop.outputs) == 1, "it runs")
    await execution.cancel()
    assert not (await execution.result(LIMIT)).success
    await loop.set_source("1")
    await behind.set_source("2")
    await until(lambda: [c.source for c in last.cells] == ["1", "2"], "the edits are everywhere")
    assert await last.run_all() == 2
    await until(lambda: behind.outputs and behind.outputs[0].data["text/plain"] == "2", "everything ran")
    await agree(books, "everybody sees the outputs")


async def dependencies(books):
    """Packages in the metadata; they are installed on request, into the kernel that runs."""
    first, last = books[0], books[-1]
    assert await first.get_dependencies() == []
    assert await first.add_dependency("six") == ["six"]
    assert await first.add_dependencies(["idna", "cowsay"]) == ["six", "idna", "cowsay"]
    fingerprint = await first.dependency_fingerprint()
    assert fingerprint
    assert await first.remove_dependency("cowsay") == ["six", "idna"]
    assert await first.dependency_fingerprint() != fingerprint
    # The native module takes heads here, whatever the wrapper calls it.
    await refused(first.approve_trust(["ab" * 32]), "Dependencies changed")
    await first.approve_trust()
    for book in books:
        while await book.get_dependencies() != ["six", "idna"]:
            await asyncio.sleep(0.005)
    done = await last.sync_environment()
    assert done.success and sorted(done.synced_packages) == ["idna", "six"], (done.error, done.synced_packages)
    assert done.error is None and done.needs_restart is False
    assert value(await (await first.cells.create("import idna; idna.__name__")).run(LIMIT)) == "'idna'"


async def the_runtime(books):
    """The kernel's life, which everybody sees."""
    first, last = books[0], books[-1]
    await first.start()
    for message in await last.restart(wait_for_ready=True):
        assert isinstance(message, str)
    kernel = first.runtime.kernel
    assert kernel.status in ("idle", "starting") and kernel.lifecycle and kernel.name == kernel.language == "python"
    assert kernel.env_source.startswith("uv:") and not kernel.error_reason and not kernel.error_details
    assert isinstance(kernel.starting_phase, str) and isinstance(kernel.activity, str)
    env = first.runtime.env
    assert isinstance(env.in_sync, bool) and env.added == env.removed == [] and not env.progress, env.progress
    assert not env.channels_changed and not env.deno_changed and isinstance(env.prewarmed_packages, list)
    state = last.runtime
    assert state.runtime_state_doc_id == f"runtime:{first.notebook_id}" and state.comms == {}, state.runtime_state_doc_id
    assert isinstance(state.executions, dict) and state.last_saved is None, state.last_saved
    assert isinstance(state.project_context_json, str), state.project_context_json
    await until(lambda: all(book.runtime.kernel.status == "idle" for book in books), "everybody sees it idle")


async def private(book):
    """Values of public types that only the session underneath gives out."""
    session = book._session
    items = surface.look(await patiently(lambda: session.complete("imp", 3)))
    assert (items.cursor_start, items.cursor_end) == (0, 3)
    assert any(item.label == "import" and item.source == "kernel" for item in items.items)
    assert all(item.kind is None and item.detail is None for item in items.items)
    for entry in surface.look(await patiently(lambda: session.get_history(None, 3, True))):
        assert isinstance(entry.session, int) and isinstance(entry.line, int) and isinstance(entry.source, str)
    info = surface.look(await session.connection_info())
    if info is not None:
        assert (info.protocol, info.protocol_version, info.ephemeral) == ("v4", 4, False)
        assert info.notebook_id == book.notebook_id and info.daemon_version and not info.needs_trust_approval
        assert info.cell_count >= 0 and info.notebook_path is None


async def patiently(ask):
    """Asks a kernel that has just started, on a busy machine, until it answers within its 5 s."""
    for attempt in range(5):
        try:
            return await ask()
        except runtimed.RuntimedError as error:
            assert "timed out" in str(error), error
    return await ask()


async def rooms(clients, books):
    rows = [row for row in await clients[-1].list_active_notebooks() if row.notebook_id == books[0].notebook_id]
    (row,) = rows
    assert row.active_peers == len(books) and row.had_peers and row.has_runtime and not row.is_draining
    assert row.runtime_type == "python" and row.status == "idle" and row.env_source.startswith("uv:")
    assert row.is_ephemeral and row.path is None and row.name == row.notebook_id[:8]
    again = await row.join(clients[-1], peer_label="guest")
    assert again.cells.ids == books[0].cells.ids
    await again.disconnect()


async def files(books):
    """A notebook gets a file, which everybody sees saved."""
    first, last = books[0], books[-1]
    path = os.path.join(folder(), "all.ipynb")
    assert await last.save_as(path) == os.path.realpath(path)
    await until(lambda: all(book.runtime.last_saved for book in books), "everybody sees it saved")
    await first.cells.create("saved = 1")
    assert await first.save() == os.path.realpath(path)
    async with runtimed.Client() as client:
        same = await client.open_notebook(path)
        assert same.notebook_id == first.notebook_id and same.cells.ids == first.cells.ids
        await same.disconnect()
    await agree(books, "everybody has what is in the file")


start(main)
