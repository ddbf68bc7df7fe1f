"""A client in a process of its own, which can be killed: it edits and runs, and says each step before it makes it.

usage: guest.py SEED PREFIX NOTEBOOK SHARED. What is known of its author is the first line of stdin; each line of stdout
is a step, in JSON. It ends when stdin does.
"""
import asyncio
import json
import os
import sys
from random import Random

import runtimed

from author import Author
from book import Book
from deeds import Hand

SEED, PREFIX, NOTEBOOK, SHARED = sys.argv[1:]


def say(*step):
    print(json.dumps(step), flush=True)


class Telling(Author):
    """Says what it is about to do."""

    def __init__(self, known):
        super().__init__(known["name"])
        self.take(known)

    def told(name):
        def method(self, *arguments):
            result = getattr(Author, name)(self, *arguments)
            say("author", self.__dict__)
            return result

        return method

    wrote, wrote_line, create, created, acknowledge = map(
        told, ["wrote", "wrote_line", "create", "created", "acknowledge"]
    )


class TellingBook(Book):
    def asks_for_run(self, cell):
        super().asks_for_run(cell)
        say("asks", cell)

    def accepted(self, execution_id, run):
        super().accepted(execution_id, run)
        say("accepted", execution_id, run.cell, run.source)


async def main(known):
    async with runtimed.Client(peer_label=known["name"]) as client:
        author = Telling(known)
        notebook = await client.join_notebook(NOTEBOOK)
        hand = Hand(Random(SEED), TellingBook(None, NOTEBOOK, SHARED, [author]), author, notebook, PREFIX)
        say("there")
        work = asyncio.create_task(hand.work())
        rest = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([work, rest], return_when=asyncio.FIRST_COMPLETED)
        hand.tired = True
        await work
        await hand.confirm()


try:
    asyncio.run(main(json.loads(sys.stdin.readline())))
except runtimed.RuntimedError as error:
    # The daemon is gone, or so this looks from here. Whoever watches knows.
    say("lost", str(error))
os._exit(0)
