"""Cells that show something, and what exactly: every output names the run it is of.

Each kind has outputs that fit into the document, or that are too large for it and go to the blob store.
"""
import base64

# Above what a document holds of a stream (64 KiB) and of any other text (1 KiB).
LONG_STREAM, LONG_TEXT = 100_000, 3_000

# Name of a kind -> the lines behind `name = "..."`, and its outputs for a name. An output is a tuple of its type
# and what it says; a dict is what it has by media type.
KINDS = {
    "line": ["print(name)"],
    "lines": ["import time", "for i in range(5):", "    print(name, i, flush=True)", "    time.sleep(0.01)"],
    "flood": [f"print(name + 'x' * {LONG_STREAM})"],
    "both": ["import sys", "print(name)", "print(name, file=sys.stderr)", "name"],
    "value": [f"name * {LONG_TEXT}"],
    "html": [f"display({{'text/plain': name, 'text/html': name + 'h' * {LONG_TEXT}}}, raw=True)"],
    "image": [
        "from IPython.display import Image",
        f"display({{'image/png': Image(b'\\x89PNG\\r\\n\\x1a\\n' + name.encode() * {LONG_TEXT}).data}}, raw=True)",
    ],
    "error": ["print(name, flush=True)", "raise ValueError(name)"],
}


def source(kind, name):
    return "\n".join([f'name = "{name}"', *KINDS[kind]])


def shows(text):
    """What a run of this source shows, whatever comments are behind it."""
    name = text.split('"')[1]
    (kind,) = (kind for kind in KINDS if (text + "\n").startswith(source(kind, name) + "\n"))
    line = ("stream", "stdout", f"{name}\n")
    return {
        "line": [line],
        "lines": [("stream", "stdout", "".join(f"{name} {i}\n" for i in range(5)))],
        "flood": [("stream", "stdout", f"{name}{'x' * LONG_STREAM}\n")],
        "both": [line, ("stream", "stderr", f"{name}\n"), ("execute_result", {"text/plain": f"'{name}'"})],
        "value": [("execute_result", {"text/plain": repr(name * LONG_TEXT)})],
        "html": [("display_data", {"text/plain": name, "text/html": name + "h" * LONG_TEXT})],
        "image": [("display_data", {"image/png": b"\x89PNG\r\n\x1a\n" + name.encode() * LONG_TEXT})],
        "error": [line, ("error", "ValueError", name)],
    }[kind]


def seen(outputs):
    """The client's outputs in that form, without the description that the client itself puts beside them."""
    return [
        ("stream", it.name, it.text)
        if it.output_type == "stream"
        else ("error", it.ename, it.evalue)
        if it.output_type == "error"
        else (it.output_type, {key: value for key, value in it.data.items() if key != "text/llm+plain"})
        for it in outputs
    ]


def saved(outputs):
    """A file's outputs in that form."""

    def text(value):
        return "".join(value) if isinstance(value, list) else value

    def content(media_type, value):
        return base64.b64decode(text(value)) if media_type == "image/png" else text(value)

    return [
        ("stream", it["name"], text(it["text"]))
        if it["output_type"] == "stream"
        else ("error", it["ename"], it["evalue"])
        if it["output_type"] == "error"
        else (it["output_type"], {key: content(key, value) for key, value in it["data"].items()})
        for it in outputs
    ]
