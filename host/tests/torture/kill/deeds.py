"""What a client does in a notebook, one random deed after the other, until it is stopped.

Promises: the same generator makes the same choices as long as the daemon's answers come in the same order.
"""
import asyncio

import runtimed

import programs
from book import Run
from support import until

# Cells and unfinished runs of one client in one notebook: enough to be in each other's way, and no more than a
# kernel has done by the time of the kill.
CELLS, RUNS = 8, 2
# Longest pause between two deeds, in seconds.
PAUSE = 0.03
# How often a cell may fail because the kernel before is just found to be gone.
TRIES = 5


class Hand:
    def __init__(self, random, book, author, notebook, prefix):
        self.random, self.book, self.author, self.notebook = random, book, author, notebook
        self.prefix, self.names, self.tired = prefix, 0, False
        deeds = {
            self.append: 6,
            self.rename: 5,
            self.replace: 4,
            self.write_line: 8,
            self.create: 6,
            self.move: 2,
            self.delete: 2,
            self.confirm: 2,
            self.run: 10,
            self.save: 4 if book.path else 0,
        }
        self.deeds, self.weights = list(deeds), list(deeds.values())

    async def work(self):
        """Until it is stopped, or has done what it was at when it got tired."""
        while not self.tired:
            await self.random.choices(self.deeds, self.weights)[0]()
            self.book.look(self.notebook, self.author.name)
            await asyncio.sleep(self.random.random() * PAUSE)

    def name(self):
        self.names += 1
        return f"{self.prefix}.{self.names}"

    def a_cell(self):
        own = self.author.own()
        return self.random.choice(own) if own else None

    async def append(self):
        if cell := self.a_cell():
            text = f"\n# {self.name()}"
            self.author.wrote(cell, self.author.source(cell) + text)
            await self.notebook.cells[cell].append(text)

    async def rename(self):
        """The next run of the cell shows another name."""
        if cell := self.a_cell():
            before, name = self.author.source(cell), self.name()
            start = before.index('"') + 1
            length = before.index('"', start) - start
            self.author.wrote(cell, before[:start] + name + before[start + length :])
            await self.notebook.cells[cell].splice(start, length, name)

    async def replace(self):
        if cell := self.a_cell():
            source = self.a_program()
            self.author.wrote(cell, source)
            await self.notebook.cells[cell].set_source(source)

    def a_program(self):
        return programs.source(self.random.choice(list(programs.KINDS)), self.name())

    async def write_line(self):
        """In the cell where everybody writes: at its end or at its beginning."""
        line, cell = f"# {self.name()}", self.notebook.cells[self.book.shared]
        self.author.wrote_line(line)
        await (cell.append(line + "\n") if self.random.random() < 0.5 else cell.splice(0, 0, line + "\n"))

    async def create(self):
        if len(self.author.own()) < CELLS:
            source, cells = self.a_program(), self.notebook.cells
            self.author.create(source)
            if self.random.random() < 0.5:
                cell = await cells.create(source)
            else:
                cell = await cells.insert_at(self.random.randrange(len(cells)), source)
            self.author.created(cell.id)

    async def move(self):
        if cell := self.a_cell():
            others = [it for it in self.author.own() if it != cell]
            await self.notebook.cells[cell].move_after(self.random.choice([None, self.book.shared, *others]))

    async def delete(self):
        if cell := self.a_cell():
            self.author.wrote(cell, None)
            await self.notebook.cells[cell].delete()

    async def confirm(self):
        """The daemon says that it has everything."""
        begun = self.author.begun
        await self.notebook._session.confirm_sync()
        self.author.acknowledge(begun)

    async def run(self):
        under_way = [it for it in self.book.runs.values() if it.author is self.author and not it.over]
        cell = self.a_cell()
        if cell is None or len(under_way) >= RUNS:
            return
        self.book.asks_for_run(cell)
        begun, source = self.author.begun, self.author.source(cell)
        try:
            execution = await self.notebook.cells[cell].execute()
        except runtimed.RuntimedError:
            if self.book.bereft and self.notebook.is_connected:
                return
            raise
        self.author.acknowledge(begun)
        self.book.accepted(execution.execution_id, Run(self.author, cell, source))

    async def goes_on(self):
        """Runs a cell to its end: a kernel that was killed has a successor."""
        while not self.a_cell():
            await self.create()
        for _ in range(TRIES):
            # A cell that waits is not queued again.
            await until(lambda: self.book.look(self.notebook, self.author.name) or self.is_over(self.book.runs), "all ends")
            known = set(self.book.runs)
            await self.run()
            mine = [it for it in self.book.runs if it not in known]
            await until(lambda: self.book.look(self.notebook, self.author.name) or self.is_over(mine), "the cell ends")
            if any(self.book.runs[it].finished for it in mine):
                return
            # Whatever fails from now on has no such excuse.
            self.book.bereft = False
        raise AssertionError(f"no cell runs to its end after the kernel was killed: {self.notebook.runtime.kernel}")

    def is_over(self, runs):
        return all(self.book.runs[it].over for it in runs)

    async def save(self):
        least = self.book.acknowledged()
        await self.notebook.save()
        self.book.was_saved(least)
