"""A notebook as a client or a file has it: sources by cell, and the shared cell's lines."""
import json


class State:
    def __init__(self, cells, shared):
        """`cells` are pairs of id and source."""
        ids = [cell for cell, _ in cells]
        assert len(ids) == len(set(ids)), f"a cell is there twice: {ids}"
        self.cells = dict(cells)
        assert shared in self.cells, f"the shared cell is gone: {ids}"
        text = self.cells.pop(shared)
        assert text == "" or text.endswith("\n"), f"a torn line in the shared cell: {text[-80:]!r}"
        self.lines = text.splitlines()
        # Cells that nobody has claimed yet.
        self.unknown = set()

    def claim(self, authors):
        """Fails if there is anything that no author can have written."""
        self.unknown = set(self.cells) - {cell for author in authors for cell in author.cells}
        for author in authors:
            author.adopt(self)
        assert not self.unknown, f"nobody made these cells: {[(it, self.cells[it]) for it in self.unknown]}"
        strange = set(self.lines) - {line for author in authors for _, line in author.lines}
        assert not strange, f"nobody wrote these lines: {strange}"


def of(notebook, shared):
    """What a client sees."""
    while True:
        ids = notebook.cells.ids
        cells = [(cell, notebook.cells[cell].source) for cell in ids]
        # Cells that come or go meanwhile would make it a state that never was.
        if notebook.cells.ids == ids:
            return State(cells, shared)


def read(path):
    """The file's cells."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)["cells"]


def of_file(cells, shared):
    return State([(cell["id"], "".join(cell["source"])) for cell in cells], shared)
