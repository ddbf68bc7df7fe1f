"""One notebook that two clients work in, and what must be left of it.

For: comparing the notebook with what was acknowledged, as clients see it and as it is in its file.
"""
import asyncio
import time

import runtimed

import programs
import state
from support import LIMIT


class Run:
    """An execution that was accepted."""

    def __init__(self, author, cell, source):
        self.author, self.cell, self.source = author, cell, source
        # Whether it ended by itself; `cancelled` if it never began, or went with its kernel.
        self.finished = self.cancelled = False
        # Its kernel was killed while it was under way.
        self.at_risk = False

    @property
    def over(self):
        return self.finished or self.cancelled


class Book:
    def __init__(self, path, notebook_id, shared, authors):
        # None if it has no file.
        self.path = path
        self.notebook_id = notebook_id
        self.shared = shared
        self.authors = authors
        # Runs of this daemon's life, by execution id, and the saves that it answered.
        self.runs, self.saves = {}, 0
        # Own cell -> id of its last run; and that run, if it is finished. While one is asked for nothing is certain.
        self.last, self.shown = {}, {}
        # Its kernel was killed in this life.
        self.bereft = False
        # The client in another process that works in it, if there is one.
        self.guest = None
        # What saves that were answered put into the file at least: deeds of each author, runs that cells showed.
        self.in_file = [0] * len(authors), {}

    def acknowledged(self):
        return [author.acknowledged for author in self.authors], dict(self.shown)

    def was_saved(self, least):
        """A save was answered; `least` was acknowledged before it was asked for."""
        deeds, shown = self.in_file
        self.in_file = list(map(max, deeds, least[0])), shown | least[1]
        self.saves += 1
        self.check_file()

    def asks_for_run(self, cell):
        self.last.pop(cell, None)
        self.shown.pop(cell, None)

    def accepted(self, execution_id, run):
        # A cell that waits or runs is not queued again: it is the run that was accepted before.
        self.runs.setdefault(execution_id, run).at_risk |= self.bereft
        self.last[run.cell] = execution_id

    def lose_kernel(self):
        self.bereft = True
        for run in self.runs.values():
            run.at_risk |= not run.over

    def hear(self):
        """Everything that the client in the other process has said by now."""
        if self.guest:
            self.guest.hear()

    def look(self, notebook, by):
        """A client has this in front of it now."""
        seen = state.of(notebook, self.shared)
        self.hear()
        for author in self.authors:
            if author.name != by:
                author.was_seen(seen)
        under_way = [(execution_id, run) for execution_id, run in self.runs.items() if not run.over]
        there = notebook.runtime.executions if under_way else {}
        for execution_id, run in under_way:
            status = there[execution_id].status if execution_id in there else "queued"
            run.cancelled = status == "cancelled" or run.at_risk and status == "error"
            run.finished = status in ("done", "error") and not run.cancelled
            if run.finished and self.last.get(run.cell) == execution_id:
                self.shown[run.cell] = run

    def check_file(self):
        """Fails unless the file has all that was saved, once, and nothing that nobody wrote."""
        cells = state.read(self.path)
        seen = state.of_file(cells, self.shared)
        self.hear()
        seen.claim(self.authors)
        deeds, shown = self.in_file
        for author, least in zip(self.authors, deeds):
            author.agree(seen, least)
        for cell in cells:
            run = shown.get(cell["id"])
            if run and self.shown.get(cell["id"]) is run:
                compare(f"cell {cell['id']} in the file", programs.saved(cell["outputs"]), run)

    def check(self, notebook):
        """Fails unless a client of a new daemon has all that was acknowledged."""
        seen = state.of(notebook, self.shared)
        seen.claim(self.authors)
        for author in self.authors:
            author.agree(seen, author.acknowledged)
        for cell, run in self.shown.items():
            if cell in seen.cells:
                compare(f"cell {cell}", programs.seen(notebook.cells[cell].outputs), run)
        return seen

    async def check_records(self, client):
        """Fails unless every finished run of the last life can be read by its id."""
        for execution_id, run in self.runs.items():
            if run.finished:
                result = await there(lambda: client.get_execution_result(execution_id))
                compare(f"execution {execution_id}", programs.seen(result.outputs), run)

    def settle(self, seen, notebook):
        """What the new daemon has is what this life begins with."""
        for author in self.authors:
            author.settle(seen)
        # A kernel that outlived the daemon goes on with the others.
        there = notebook.runtime.executions
        going_on = lambda it: it in there and there[it].status in ("queued", "running")
        self.runs = {it: run for it, run in self.runs.items() if not run.over and going_on(it)}
        self.saves, self.bereft = 0, False


async def there(ask):
    """What was asked for, once it is there."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return await ask()
        except runtimed.RuntimedError as error:
            assert "not found" in str(error) and time.monotonic() < end, error
        await asyncio.sleep(0.005)


def compare(what, outputs, run):
    wanted = programs.shows(run.source)
    if outputs != wanted:
        raise AssertionError(f"{what} should show {shorten(wanted)} and shows {shorten(outputs)}")


def shorten(outputs):
    text = repr(outputs)
    return text if len(text) < 600 else f"{text[:300]} ... {text[-300:]} ({len(text)} characters)"
