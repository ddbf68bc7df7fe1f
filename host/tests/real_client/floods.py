"""More than anybody reads: it is all there, in order, and the daemon's memory stays bounded. Linux."""
import hashlib
import json
import os
import random
import socket
import struct
import urllib.request

from support import LIMIT, ran, start, value

IMAGES, MIB = 24, 1 << 20
# What the room is handed, holds and stores at a time, and what handling one image takes (docs/KERNEL_SHIM.md).
BOUND = 288 * MIB


async def main(client):
    notebook = await client.create_notebook()
    await lines(notebook)
    await displays(notebook)
    await images(notebook)
    await one_large_result(notebook)


async def lines(notebook):
    result = await ran(notebook, "for i in range(200_000): print(i)")
    assert result.stdout == "".join(f"{i}\n" for i in range(200_000)), len(result.stdout)


async def displays(notebook):
    result = await ran(notebook, "for i in range(2_000): display(i)")
    assert [output.data["text/plain"] for output in result.outputs] == [str(i) for i in range(2_000)]


async def images(notebook):
    pid, port = daemon()
    before = memory(pid, "VmRSS")
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")
    source = (
        "import random\nfrom IPython.display import Image\n"
        f"for i in range({IMAGES}): display(Image(random.Random(i).randbytes({16 * MIB}), format='png'))"
    )
    cell = await notebook.cells.create(source)
    execution = await cell.execute()
    # The result would be all of it, in this process.
    nothing = await ran(notebook, "1")
    assert value(nothing) == "1" and execution.status == "done"
    took = memory(pid, "VmHWM") - before
    assert took < BOUND, f"{took / MIB} MiB"
    for i in range(IMAGES):
        assert is_stored(port, random.Random(i).randbytes(16 * MIB)), f"image {i}"


async def one_large_result(notebook):
    cell = await notebook.cells.create("'x' * 20_000_000")
    execution = await cell.execute()
    await ran(notebook, "1")
    assert execution.status == "done"
    assert is_stored(daemon()[1], b"'" + b"x" * 20_000_000 + b"'")


def daemon():
    """Its process id, and the port of its blob server."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(os.environ["RUNTIMED_SOCKET_PATH"])
        pid = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        stream.sendall(bytes.fromhex("c0de01ac04"))
        for said in ({"channel": "pool"}, {"type": "get_daemon_info"}):
            body = json.dumps(said).encode()
            stream.sendall(struct.pack(">I", len(body)) + body)
        with stream.makefile("rb") as answer:
            return pid, json.loads(answer.read(struct.unpack(">I", answer.read(4))[0]))["blob_port"]


def is_stored(port, body):
    """Whether the blob store has exactly this."""
    address = f"http://127.0.0.1:{port}/blob/{hashlib.sha256(body).hexdigest()}"
    with urllib.request.urlopen(address, timeout=LIMIT) as answer:
        return answer.read() == body


def memory(pid, key):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


start(main)
