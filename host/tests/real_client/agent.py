"""An agent works in a notebook through `runt mcp`, and a window of the real client sees it live.

The agent is the `mcp` package from the index, in a venv of its own; the window is `agent_window.py`.
RUNTIMED_TEST_DIST has `runt`; RUNTIMED_TEST_CLIENT_PYTHON is the window's. The argument names the function.
"""
import asyncio
import base64
import os
import re
import subprocess
import sys
import time

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client

# Longest wait for anything, on a busy two-core machine that is building environments.
LIMIT = 300
RUNT = os.path.join(os.environ["RUNTIMED_TEST_DIST"], "bin/runt")
WINDOW = [os.environ["RUNTIMED_TEST_CLIENT_PYTHON"], "-B", os.path.join(os.path.dirname(__file__), "agent_window.py")]
TOOLS = """connect_notebook create_cell create_notebook delete_cell disconnect_notebook execute_cell get_all_cells
get_cell get_results interrupt_kernel list_active_notebooks manage_dependencies move_cell replace_match replace_regex
restart_kernel run_all_cells save_notebook set_cell""".split()


class Agent:
    """One session, and short ways to call tools."""

    def __init__(self, session):
        self.session = session

    async def answer(self, tool, **arguments):
        return await self.session.call_tool(tool, arguments, read_timeout_seconds=2 * LIMIT)

    async def __call__(self, tool, **arguments):
        """The words of an answer that is no error."""
        answer = await self.answer(tool, **arguments)
        assert not answer.is_error, f"{tool} {arguments}: {text(answer)}"
        return text(answer)

    async def refused(self, tool, *words, **arguments):
        """The words of an error that has these words in it."""
        answer = await self.answer(tool, **arguments)
        assert answer.is_error, f"{tool} {arguments} should have been refused: {text(answer)}"
        for word in words:
            assert word in text(answer), f"`{word}` is not in: {text(answer)}"
        return text(answer)

    async def create(self, source, **more):
        """A new cell's id, and what was said."""
        said = await self("create_cell", source=source, timeout_secs=LIMIT, **more)
        return found(r"Created cell_id=(\S+)\.", said), said


def text(answer):
    return "\n".join(content.text for content in answer.content if content.type == "text")


def found(pattern, said):
    match = re.search(pattern, said)
    assert match, f"{pattern} is not in: {said}"
    return match[1]


async def until(agent, predicate, what, tool, **arguments):
    """Calls a tool until its answer is the one."""
    end = time.monotonic() + LIMIT
    while not predicate(said := await agent(tool, **arguments)):
        assert time.monotonic() < end, f"never came true: {what}; last: {said}"
        await asyncio.sleep(0.02)
    return said


async def outlives(agent):
    """The daemon is killed between two calls, and the next one comes while there is none."""
    await agent("create_notebook", timeout_secs=LIMIT)
    _, said = await agent.create("x = object()\nid(x)", and_run=True)
    value = found(r"\[output 1: result\]\n(\d+)\n", said)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    answer = await agent.answer("create_cell", source="id(x)", and_run=True, timeout_secs=LIMIT)
    while "away just now" in text(answer):
        answer = await agent.answer("create_cell", source="id(x)", and_run=True, timeout_secs=LIMIT)
    assert f"[output 1: result]\n{value}\n" in text(answer), text(answer)
    said = await agent("get_all_cells")
    assert said.count("--- cell") == 2, f"nothing is lost, nothing done twice: {said}"


async def works(agent):
    session = agent.session
    assert "never allow packages yourself" in session.instructions, session.instructions
    tools = (await session.list_tools()).tools
    assert sorted(tool.name for tool in tools) == TOOLS, sorted(tool.name for tool in tools)
    for tool in tools:
        assert tool.description and tool.annotations.title, tool.name
        undescribed = [name for name, schema in tool.input_schema.get("properties", {}).items() if not schema.get("description")]
        assert not undescribed, f"{tool.name}: {undescribed}"

    await agent.refused("execute_cell", "No notebook is connected", "create_notebook", cell_id="x")
    said = await agent("create_notebook")
    notebook = found(r"notebook_id=(\S+)", said)
    assert "0 cell(s)" in said and "no file yet" in said, said
    first, said = await agent.create("x = 6\nx * 7", and_run=True)
    assert "status=done" in said and "[output 1: result]\n42\n" in said, said
    await editing(agent, first)
    await outputs(agent)
    await errors(agent)
    await kernels(agent)
    await together(agent, notebook)
    await files(agent, notebook)
    await dependencies(agent)


async def editing(agent, first):
    last, _ = await agent.create("z = 3")
    title, _ = await agent.create("# Title", cell_type="markdown", before_cell_id=first)
    middle, _ = await agent.create("y = 1\ny = 1\nprint('old')\n", after_cell_id=first)
    said = await agent("get_all_cells")
    assert re.findall(r"cell_id=([^,\s]+)", said) == [title, first, middle, last], said
    assert f"--- cell 1: markdown, cell_id={title}\n# Title\n" in said, said
    await agent("move_cell", cell_id=title, after_cell_id=last)
    await agent("move_cell", cell_id=last, before_cell_id=first)
    said = await agent("get_all_cells", outputs=False)
    assert re.findall(r"cell_id=([^,\s]+)", said) == [last, first, middle, title], said
    said = await agent("replace_match", cell_id=middle, match="old", content="new")
    assert "   3| print('new')" in said, said
    await agent.refused("replace_match", "lines 1, 2", "context_before", cell_id=middle, match="y = 1", content="y = 2")
    await agent("replace_match", cell_id=middle, match="y = 1", content="y = 2", context_after="\nprint")
    await agent("replace_regex", cell_id=middle, pattern=r"^print\(.*\)$", content="print('$1', y)")
    await agent.refused("replace_regex", "matches 2 places", cell_id=middle, pattern="y = ", content="")
    said = await agent("execute_cell", cell_id=middle, timeout_secs=LIMIT)
    assert "[output 1: stdout]\n$1 2\n" in said, said
    await agent.refused("execute_cell", "markdown cell", cell_id=title)
    said = await agent("set_cell", cell_id=last, source="z = 4\nz", and_run=True, timeout_secs=LIMIT)
    assert "[output 1: result]\n4\n" in said, said
    await agent("delete_cell", cell_id=title)
    # Wrong arguments say what is right.
    await agent.refused("delete_cell", "no cell", "get_all_cells", cell_id=title)
    await agent.refused("set_cell", "cell_id", source="x")
    await agent.refused("set_cell", "unknown field `code`", "`source`", cell_id=last, code="x")
    await agent.refused("create_cell", "markdown", source="x", cell_type="prose")
    await agent.refused("move_cell", "after_cell_id or before_cell_id", cell_id=last)


async def outputs(agent):
    """An image, a long text, HTML, and what is read page by page."""
    # A picture of one black pixel.
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    source = f"import base64\nfrom IPython.display import HTML, Image, display\ndisplay(Image(base64.b64decode('{pixel}')))"
    answer = await agent.answer("create_cell", source=source, and_run=True, timeout_secs=LIMIT)
    assert [content.type for content in answer.content] == ["text", "image"], answer
    assert answer.content[1].mime_type == "image/png" and answer.content[1].data == pixel, answer
    assert "[output 1: image/png, 67 B]" in text(answer), text(answer)
    said = await agent("get_all_cells")
    assert "image/png, 67 B, not shown here; get_cell shows it" in said, said

    _, said = await agent.create("for number in range(10_000):\n    print(f'\\x1b[31mline {number}\\x1b[0m')", and_run=True)
    execution = found(r"execution_id=(\S+)", said)
    assert len(said) < 5_000 and "line 0\n" in said and "line 9999\n" in said and "\x1b" not in said, said
    offset = int(found(r"left out; get_results\(execution_id=\"" + execution + r"\", output=1, offset=(\d+)\) reads on", said))
    whole = "".join(f"line {number}\n" for number in range(10_000))
    page = await agent("get_results", execution_id=execution, output=1, offset=offset)
    head, _, body = page.partition("\n")
    assert head.startswith(f"[characters {offset} to ") and whole[offset:].startswith(body) and len(body) > 10_000, head
    read, offset = "", 0
    while offset is not None:
        head, _, body = (await agent("get_results", execution_id=execution, output=1, offset=offset)).partition("\n")
        read += body
        offset = int(head.split("offset=")[1][:-1]) if "offset=" in head else None
    assert read == whole, "the pages are the whole text"
    await agent.refused("get_results", "no output 2", execution_id=execution, output=2)
    await agent.refused("get_results", "no execution", execution_id="x")

    _, said = await agent.create("HTML('<p>only HTML</p>')", and_run=True)
    assert "from text/html]\nonly HTML\n" in said, said


async def errors(agent):
    bad, said = await agent.create("def f(n):\n    return 1 / n\nf(0)", and_run=True)
    assert "status=error" in said and "ZeroDivisionError: division by zero" in said and "\x1b" not in said, said
    assert "return 1 / n" in said, f"the traceback is there: {said}"
    after, _ = await agent.create("'after'")
    said = await agent("run_all_cells", timeout_secs=LIMIT)
    assert f"cell_id={after}" in said and "status=cancelled" in said and "did not run" in said, said
    await agent("set_cell", cell_id=bad, source="f = None")
    said = await agent("run_all_cells", timeout_secs=LIMIT)
    assert re.match(r"(\d+) of \1 code cells are done", said) and "'after'" in said, said


async def kernels(agent):
    loop = "import time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(0.01)"
    said = await agent("create_cell", source=loop, and_run=True, timeout_secs=0)
    cell, execution = found(r"Created cell_id=(\S+)\.", said), found(r"execution_id=(\S+)", said)
    assert "get_results" in said and "interrupt_kernel" in said, said
    await until(agent, lambda it: "begun" in it and "still running" in it, "the loop runs", "get_results", execution_id=execution)
    said = await agent("execute_cell", cell_id=cell, timeout_secs=0)
    assert f"execution_id={execution}" in said, f"what runs is not run again: {said}"
    said = await agent("interrupt_kernel")
    assert "idle" in said, said
    await until(agent, lambda it: "KeyboardInterrupt" in it and "status=error" in it, "it is told", "get_results", execution_id=execution)
    await agent("delete_cell", cell_id=cell)
    said = await agent("restart_kernel", timeout_secs=LIMIT)
    assert "Restarted: python kernel" in said, said
    _, said = await agent.create("'x' in globals()", and_run=True)
    assert "\nFalse\n" in said, f"the variables are gone: {said}"


async def together(agent, notebook):
    """What one does the other sees, without asking again."""
    process = await asyncio.create_subprocess_exec(*WINDOW, notebook, stdout=subprocess.PIPE)
    assert await process.stdout.readline() == b"joined\n"
    said = await agent("list_active_notebooks")
    assert f"notebook_id={notebook}" in said and "open 2 time(s), connected here, the one that is meant" in said, said
    mine, said = await agent.create("# from the agent\nprint('agent', flush=True)", and_run=True)
    said = await until(agent, lambda it: "# from the window" in it, "the window's cell is here", "get_all_cells")
    theirs = found(r"cell_id=([^,\s]+)[^\n]*\n# from the window", said)
    said = await until(agent, lambda it: "[output 1: stdout]\nwindow\n" in it, "its output is here", "get_cell", cell_id=theirs)
    await agent("delete_cell", cell_id=mine)
    assert await asyncio.wait_for(process.wait(), LIMIT) == 0


async def files(agent, notebook):
    path = os.path.join(os.environ["HOME"], "agent.ipynb")
    await agent.refused("save_notebook", "no file yet", "path")
    await agent.refused("save_notebook", "absolute", path="agent.ipynb")
    await agent.refused("save_notebook", ".ipynb", path=path + ".txt")
    assert path in await agent("save_notebook", path=path)
    assert os.path.isfile(path)
    assert path in await agent("save_notebook")
    await agent.refused("create_notebook", "not overwritten", "connect_notebook", path=path)
    assert path in await agent("disconnect_notebook", notebook=notebook)
    await agent.refused("get_all_cells", "No notebook is connected")
    await agent.refused("connect_notebook", "no file", "create_notebook", path=path + "x")
    await agent.refused("connect_notebook", "either path or notebook_id")
    said = await agent("connect_notebook", path="~/agent.ipynb")
    assert f"notebook_id={notebook} {path}" in said and "x = 6" in said, said
    other = found(r"notebook_id=(\S+)", await agent("create_notebook", path=path.replace("agent", "second"), runtime="python"))
    assert "0 cell(s)" in await agent("get_all_cells")
    assert "x = 6" in await agent("get_all_cells", notebook="agent.ipynb")
    await agent.refused("get_all_cells", "is not connected", "second.ipynb", notebook="nobody.ipynb")
    assert notebook in await agent("disconnect_notebook", notebook=other)


async def dependencies(agent):
    said = await agent("manage_dependencies", action="read")
    assert "manager: uv" in said and "declared: none" in said, said
    before = found(r"fingerprint: (\w+)", said)
    said = await agent("manage_dependencies", action="add", packages=["nbformat"], timeout_secs=LIMIT)
    assert "Installed: nbformat" in said and "trust: trusted" in said, said
    _, said = await agent.create("import nbformat\nnbformat.__name__", and_run=True)
    assert "'nbformat'" in said, said
    await agent.refused("manage_dependencies", "Somebody has changed", action="add", packages=["attrs"], fingerprint=before)
    await agent.refused("manage_dependencies", "not a package", action="add", packages=["--index-url=x"])
    # What nobody has allowed is declared and not installed; only the user can allow it.
    said = await agent.refused("manage_dependencies", "cowsay", "user's decision", "runt trust allow", action="add", packages=["cowsay"], timeout_secs=LIMIT)
    _, said = await agent.create("import importlib.util\nimportlib.util.find_spec('cowsay')", and_run=True)
    assert "no output" in said, said
    said = await agent("manage_dependencies", action="read")
    assert "declared: nbformat, cowsay" in said and "trust: untrusted" in said, said
    allowed = await asyncio.create_subprocess_exec(RUNT, "trust", "allow", "cowsay", stdout=subprocess.DEVNULL)
    assert await allowed.wait() == 0
    said = await agent("manage_dependencies", action="add", timeout_secs=LIMIT)
    assert "Installed: cowsay" in said and "trust: trusted" in said, said
    said = await agent("manage_dependencies", action="remove", packages=["cowsay"])
    assert "declared: nbformat\n" in said, said
    drifted = "installed in the running environment and declared no more: cowsay"
    await until(agent, lambda it: drifted in it, "what is left is said", "manage_dependencies", action="read")
    await agent.refused("manage_dependencies", "Declared are: nbformat", action="remove", packages=["cowsay"])
    # The same for a new notebook: what is allowed is there at once, what is not waits.
    said = await agent("create_notebook", dependencies=["cowsay"], timeout_secs=LIMIT)
    assert "Installed: cowsay" in said, said
    said = await agent("create_notebook", dependencies=["pyjokes"], timeout_secs=LIMIT)
    assert said.count("pyjokes") == 2 and "user's decision" in said and "0 cell(s)" in said, said


async def main(function):
    server = StdioServerParameters(command=RUNT, args=["mcp", "--no-show"], env=dict(os.environ))
    async with stdio_client(server) as (reading, writing):
        client = types.Implementation(name="Test Agent", version="1")
        async with ClientSession(reading, writing, client_info=client) as session:
            await session.initialize()
            await function(Agent(session))


asyncio.run(main({"works": works, "outlives": outlives}[sys.argv[1]]))
