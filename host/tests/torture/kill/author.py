"""What one client did in one notebook, and how much of it is acknowledged.

For: saying of any state of the notebook whether the client could have left it so.
Promises: a client's deeds are numbered, and each follows from those before it, so a notebook has the first so many
of them and no others; it has at least those that were acknowledged.

A client changes the source of its own cells only. The shared cell it only adds lines to, which are its own.
Everything it writes is unlike everything else it ever wrote.
"""


class Author:
    def __init__(self, name):
        self.name = name
        # Number of the last deed that was begun, and of the last one that was acknowledged.
        self.begun = self.acknowledged = 0
        # How many there were when this daemon began.
        self.settled = 0
        # Id of an own cell -> [(deed, source after it)], the last one with None if the cell was deleted.
        self.cells = {}
        # Lines in the shared cell, each with its deed.
        self.lines = []
        # Source of the cell that is being made and whose id is not known yet.
        self.creating = None

    def deed(self):
        self.begun += 1
        return self.begun

    def wrote(self, cell, source):
        self.cells.setdefault(cell, []).append((self.deed(), source))

    def wrote_line(self, line):
        self.lines.append((self.deed(), line))

    def create(self, source):
        """Begins to make a cell, which is there before it has its source."""
        self.creating = source
        self.deed()
        self.deed()

    def created(self, cell):
        self.cells[cell] = [(self.begun - 1, ""), (self.begun, self.creating)]
        self.creating = None

    def source(self, cell):
        """What the client itself sees."""
        return self.cells[cell][-1][1]

    def own(self):
        return [cell for cell in self.cells if self.source(cell) is not None]

    def acknowledge(self, deed):
        self.acknowledged = max(self.acknowledged, deed)

    def take(self, told):
        """What a client in another process says of itself; others may have seen more of it acknowledged."""
        acknowledged = max(self.acknowledged, told["acknowledged"])
        self.__dict__.update(told, acknowledged=acknowledged)

    def was_seen(self, state):
        """Another client sees this: all deeds up to the last that shows in it are acknowledged."""
        here = max((deed for deed, line in self.lines if line in state.lines), default=0)
        for cell, versions in self.cells.items():
            if cell in state.cells:
                here = max([here, *(deed for deed, source in versions if source == state.cells[cell])])
        for cell, versions in self.cells.items():
            # It is gone, rather than not there yet, if something later than its making is there.
            if cell not in state.cells and versions[0][0] <= here and versions[-1][1] is None:
                here = max(here, versions[-1][0])
        self.acknowledge(here)

    def adopt(self, state):
        """Takes the cell whose making was cut off, if it is there."""
        for cell in state.unknown:
            if self.creating is not None and state.cells[cell] in ("", self.creating):
                self.created(cell)
                state.unknown.remove(cell)
                return

    def agree(self, state, least):
        """The number of deeds, `least` or more, after which the notebook was left like this."""
        for deeds in range(self.begun, least - 1, -1):
            if not self.differences(state, deeds):
                return deeds
        best = min((self.differences(state, deeds) for deeds in range(least, self.begun + 1)), key=len)
        raise AssertionError(
            f"{self.name}: this is not what {least} (acknowledged) to {self.begun} deeds make of it:\n  " + "\n  ".join(best)
        )

    def differences(self, state, deeds):
        found = []
        for cell, versions in self.cells.items():
            wanted = next((source for deed, source in reversed(versions) if deed <= deeds), None)
            if state.cells.get(cell) != wanted:
                found.append(f"cell {cell} should be {wanted!r} and is {state.cells.get(cell)!r}")
        for deed, line in self.lines:
            if state.lines.count(line) != (deed <= deeds):
                found.append(f"line {line!r} should be there {int(deed <= deeds)} times and is {state.lines.count(line)}")
        return found

    def settle(self, state):
        """A new daemon has this: what it lacks was never acknowledged, and is as if it never was."""
        self.begun = self.acknowledged = self.settled = deeds = self.agree(state, self.acknowledged)
        self.creating = None
        self.lines = [(deed, line) for deed, line in self.lines if deed <= deeds]
        cells = {cell: [it for it in versions if it[0] <= deeds] for cell, versions in self.cells.items()}
        self.cells = {cell: versions for cell, versions in cells.items() if versions}
