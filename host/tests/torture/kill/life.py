"""Two clients edit, run and save in two notebooks, with a third in a process of its own, while the daemon, kernels'
keepers, plugins' processes and that client are killed, again and again.

usage: life.py SEED ROUNDS, started by kill.rs, which owns the daemon. The last line says what was done.

Every round: two new connections for each notebook, one of them by its path; a look whether everything is there that
was acknowledged before the last kill; random deeds of all clients at once; a kill -9 of somebody; a look at the file.
"""
import asyncio
import os
import shutil
import sys
from collections import Counter
from random import Random

import runtimed

from author import Author
from book import Book
from daemon import HOME, ROOMS, Daemon, kill, orphans, processes, verify
from deeds import Hand
from host_of_guest import Guest
from support import LIMIT, folder, start, until, validate

SEED, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
# The last one is the guest.
CLIENTS = "abc"
# Rounds after which two new notebooks are taken: the old ones are read by `runt verify` alone from then on.
LIFE = 10
# Who is killed, and in how many of so many rounds; "machine" is the daemon and all kernels' keepers at once.
VICTIMS = {"daemon": 10, "client": 4, "shim": 4, "plugin": 2, "machine": 2}
# The kill comes at most so many seconds after the deeds began, and the others go on for as long as this if they can.
LONGEST, AFTERWARDS = 2.0, 0.5
# In so many of ten rounds the deeds begin only when the kernels are up, so that there are finished outputs.
WARM = 7
# All notebooks declare these, so that one environment serves them all, also after a kill.
DEPENDENCIES = ["six"]
# What notebooks and journals were at the kill; kept if the round fails.
BEFORE = os.path.join(HOME, "before")


async def main(client):
    daemon, books, counts = Daemon(), [], Counter()
    for number in range(ROUNDS + 1):
        print(f"round {number}", flush=True)
        clients = [runtimed.Client(peer_label=name) for name in CLIENTS[:2]]
        notebooks = [await connect(clients, book) for book in books]
        for book, windows in zip(books, notebooks):
            await everything_is_there(clients, book, windows)
        await no_orphans(daemon, len(books))
        await asyncio.to_thread(verify)
        if number == ROUNDS:
            break
        if number % LIFE == 0:
            for windows in notebooks:
                await windows[0].stop_runtime()
            await no_orphans(daemon, 0)
            books = [await make(clients[0], with_file) for with_file in (True, False)]
            notebooks = [await connect(clients, book) for book in books]
        victim = await live(daemon, Random(f"{SEED}/{number}"), number, books, notebooks)
        await keep(books)
        counts.update(count(books))
        counts[f"times the {victim}"] += 1
        if victim in ("daemon", "machine"):
            await daemon.start_again()
        else:
            await daemon.rest()
            for it in [*sum(notebooks, []), *clients]:
                await (it.disconnect() if it not in clients else it.close())
    print("done", ", ".join(f"{number} {what}" for what, number in counts.items()), flush=True)


async def no_orphans(daemon, notebooks):
    try:
        await until(lambda: not orphans(daemon, notebooks), "nothing is left over")
    except AssertionError as error:
        raise AssertionError(orphans(daemon, notebooks)) from error


async def make(client, with_file):
    """A new notebook. The cell it begins with is the shared one."""
    notebook = await client.create_notebook(dependencies=DEPENDENCIES)
    path = await notebook.save_as(os.path.join(folder(), "book.ipynb")) if with_file else None
    (shared,) = notebook.cells.ids
    return Book(path, notebook.notebook_id, shared, [Author(name) for name in CLIENTS])


async def connect(clients, book):
    """A window of each client, the first by the path."""
    first, second = clients
    notebook = await (first.open_notebook(book.path) if book.path else first.join_notebook(book.notebook_id))
    assert notebook.notebook_id == book.notebook_id, "another notebook"
    return [notebook, await second.join_notebook(book.notebook_id)]


async def everything_is_there(clients, book, windows):
    seen = [book.check(window) for window in windows]
    assert seen[0].cells == seen[1].cells and seen[0].lines == seen[1].lines, "the windows differ"
    await book.check_records(clients[0])
    book.settle(seen[0], windows[0])
    if book.path:
        # A save that is under way has a file of its own there for a moment.
        alone = [os.path.basename(book.path)]
        await until(lambda: os.listdir(os.path.dirname(book.path)) == alone, "nothing is beside the file")


async def live(daemon, random, number, books, notebooks):
    """Everybody at work, and the kill of somebody; says of whom."""
    victim = random.choices(list(VICTIMS), VICTIMS.values())[0]
    kernels = [windows[0] for windows in notebooks]
    if victim == "shim" or random.randrange(10) < WARM:
        await until(lambda: all(it.runtime.kernel.status == "idle" for it in kernels), "the kernels are up")
    hands = [
        Hand(Random(f"{SEED}/{number}/{i}/{author.name}"), book, author, window, f"{number}.{i}.{author.name}")
        for i, (book, windows) in enumerate(zip(books, notebooks))
        for author, window in zip(book.authors, windows)
    ]
    book = random.choice(books)
    guest = Guest(f"{SEED}/{number}/c", f"{number}.c", book, book.authors[2])
    await until(lambda: guest.hear() or guest.began, "the guest is there")
    print("live", books[0].notebook_id, flush=True)
    killing = Killing(victim, daemon, random, number, books, guest)
    work = [asyncio.create_task(killing.excuse(hand.work())) for hand in hands]
    deed = asyncio.create_task(killing.kill())
    await asyncio.wait([deed, *work], return_when=asyncio.FIRST_COMPLETED)
    if deed.done() and killing.daemon_lives:
        # Who is left goes on, and ends what it is at.
        await asyncio.sleep(random.uniform(0, AFTERWARDS))
        guest.tire()
        for hand in hands:
            hand.tired = True
        await asyncio.gather(deed, *work)
        await guest.over(may_be_lost=book.bereft)
        await until(lambda: not any(label == "c" for it in kernels for _, label in it.peers), "the guest is seen leaving")
        for hand in hands:
            await hand.confirm()
            if hand.book.bereft and hand.author.name == "a":
                await hand.goes_on()
    else:
        for it in [deed, *work]:
            it.cancel()
        for outcome in await asyncio.gather(deed, *work, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await guest.over(may_be_lost=True)
    # What a client was told right before the kill counts as well.
    for hand in hands:
        try:
            await hand.notebook._session.get_queue_state()
        except runtimed.RuntimedError:
            pass
        hand.book.look(hand.notebook, hand.author.name)
    return victim


class Killing:
    """Who is killed at work, and when."""

    def __init__(self, victim, daemon, random, number, books, guest):
        self.victim, self.daemon, self.random, self.number = victim, daemon, random, number
        self.books, self.guest = books, guest
        self.daemon_lives = victim not in ("daemon", "machine")
        self.killed = False

    async def excuse(self, work):
        """Work that ends in an error only if the daemon is gone."""
        try:
            await work
        except runtimed.RuntimedError:
            if self.daemon_lives or not self.killed:
                raise

    async def kill(self):
        await asyncio.sleep(self.random.uniform(0, LONGEST))
        self.killed = True
        if self.victim == "client":
            self.guest.kill()
        elif self.victim == "plugin":
            await self.kill_plugins()
        else:
            if self.victim != "daemon":
                # All of them, so that it is known whose runs are gone.
                for book in self.books:
                    book.lose_kernel()
                for pid in processes()["shim"]:
                    kill(pid)
            if self.victim != "shim":
                self.daemon.kill()

    async def kill_plugins(self):
        """Kills what builds environments while it builds one, which works when it is asked for again."""
        async with runtimed.Client(peer_label="builder") as client:
            # One that there is not yet.
            notebook = await client.create_notebook(dependencies=[*DEPENDENCIES, f"six!=0.{self.number}"])
            await until(lambda: processes()["plugin"], "a plugin's process works")
            await asyncio.sleep(self.random.uniform(0, LONGEST / 4))
            for pid in processes()["plugin"]:
                kill(pid)
            cell, tries = await notebook.cells.create("1 + 1"), 0
            while not (await cell.run(LIMIT)).success:
                tries += 1
                assert tries < 5, f"no environment after its builder was killed: {notebook.runtime.kernel}"
            await notebook.stop_runtime()
            await notebook.disconnect()


def count(books):
    """What this round had to lose."""
    runs = sum(run.finished for book in books for run in book.runs.values())
    return {
        "kills": 1,
        "kills after finished runs": int(runs > 0),
        "acknowledged edits": sum(author.acknowledged - author.settled for book in books for author in book.authors),
        "finished runs": runs,
        "answered saves": sum(book.saves for book in books),
    }


async def keep(books):
    """Copies what is on disk right after the kill, and checks the files."""
    shutil.rmtree(BEFORE, ignore_errors=True)
    shutil.copytree(ROOMS, BEFORE)
    for book in books:
        if book.path:
            shutil.copy(book.path, BEFORE)
            await asyncio.to_thread(validate, book.path)
            book.check_file()


start(main)
