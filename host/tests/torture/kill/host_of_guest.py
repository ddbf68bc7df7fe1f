"""A guest as its host sees it.

Promises: whatever the guest did, it has said so before, so once `hear` was called nothing it did is unknown.
"""
import json
import os
import signal
import subprocess
import sys

from book import Run
from daemon import kill
from support import until


class Guest:
    def __init__(self, seed, prefix, book, author):
        self.book, self.author, self.rest = book, author, b""
        # Whether it has begun, and what it said when it lost the daemon.
        self.began, self.loss = False, None
        script = os.path.join(os.path.dirname(__file__), "guest.py")
        arguments = [sys.executable, "-B", script, seed, prefix, book.notebook_id, book.shared]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.process.stdin.write(json.dumps(author.__dict__).encode() + b"\n")
        self.process.stdin.flush()
        book.guest = self

    def hear(self):
        while chunk := self.process.stdout.read():
            self.rest += chunk
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            kind, *step = json.loads(line)
            if kind == "author":
                self.author.take(*step)
            elif kind == "asks":
                self.book.asks_for_run(*step)
            elif kind == "accepted":
                execution_id, cell, source = step
                self.book.accepted(execution_id, Run(self.author, cell, source))
            elif kind == "lost":
                (self.loss,) = step
            else:
                self.began = True

    def kill(self):
        kill(self.process.pid)

    def tire(self):
        """Lets it end what it is at, and go."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            # It is gone.
            pass

    async def over(self, may_be_lost):
        self.tire()
        await until(lambda: self.hear() or self.process.poll() is not None, "the guest ends")
        self.hear()
        self.book.guest = None
        assert self.process.returncode in (0, -signal.SIGKILL), f"the guest ended with {self.process.returncode}"
        assert may_be_lost or self.loss is None, f"the guest lost the daemon: {self.loss}"
