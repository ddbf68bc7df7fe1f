"""Two clients edit, run and save in two notebooks while their daemon is killed, again and again.

usage: life.py SEED ROUNDS, started by kills.rs, which owns the daemon. The last line says what was done.

Every round: two new connections for each notebook, one of them by its path; a look whether everything is there that
was acknowledged before the last kill; random deeds of both clients at once; a kill -9; a look at the file.
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
from daemon import HOME, ROOMS, Daemon, verify
from deeds import Hand
from support import folder, start, until, validate

SEED, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
CLIENTS = "ab"
# Rounds after which two new notebooks are taken: the old ones are read by `runt verify` alone from then on.
LIFE = 10
# The kill comes at most so many seconds after the deeds began.
LONGEST = 2.0
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
        clients = [runtimed.Client(peer_label=name) for name in CLIENTS]
        notebooks = [await connect(clients, book) for book in books]
        for book, windows in zip(books, notebooks):
            await everything_is_there(clients, book, windows)
        await until(lambda: len(daemon.kernels()) <= len(books), "kernels of killed daemons end, or are gone on with")
        await asyncio.to_thread(verify)
        if number == ROUNDS:
            break
        if number % LIFE == 0:
            for windows in notebooks:
                await windows[0].stop_runtime()
            books = [await make(clients[0], with_file) for with_file in (True, False)]
            notebooks = [await connect(clients, book) for book in books]
        await live(daemon, Random(f"{SEED}/{number}"), number, books, notebooks)
        await keep(books)
        counts.update(count(books))
        await daemon.start_again()
    print(", ".join(f"{number} {what}" for what, number in counts.items()))


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
    """Everybody at work, and the kill."""
    if random.randrange(10) < WARM:
        kernels = [windows[0] for windows in notebooks]
        await until(lambda: all(it.runtime.kernel.status == "idle" for it in kernels), "the kernels are up")
    hands = [
        Hand(Random(f"{SEED}/{number}/{i}/{author.name}"), book, author, window, f"{number}.{i}.{author.name}")
        for i, (book, windows) in enumerate(zip(books, notebooks))
        for author, window in zip(book.authors, windows)
    ]
    await killed_at_work(daemon, [hand.work() for hand in hands], random.uniform(0, LONGEST))
    # What a client was told right before the kill counts as well.
    for hand in hands:
        try:
            await hand.notebook._session.get_queue_state()
        except runtimed.RuntimedError:
            pass
        hand.book.look(hand.notebook, hand.author.name)


async def killed_at_work(daemon, work, delay):
    """Kills the daemon so many seconds after the work began."""
    killed = asyncio.Event()

    async def until_killed(work):
        try:
            await work
        except runtimed.RuntimedError:
            if not killed.is_set():
                raise

    async def kill():
        await asyncio.sleep(delay)
        killed.set()
        daemon.kill()

    work = [asyncio.create_task(until_killed(it)) for it in work]
    killing = asyncio.create_task(kill())
    await asyncio.wait([killing, *work], return_when=asyncio.FIRST_COMPLETED)
    for it in [killing, *work]:
        it.cancel()
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


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
