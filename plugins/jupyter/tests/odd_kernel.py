"""A kernel that is as odd as the protocol lets it be: TCP only, no status for `kernel_info`, an empty reply, no `date`.

With the argument `taken` it finds its port taken, as if somebody had been faster.
"""
import hashlib
import hmac
import json
import sys
import uuid

import zmq

connection = json.load(open(sys.argv[1]))
assert connection["transport"] == "tcp", connection
context = zmq.Context()


def bound(kind, name):
    socket = context.socket(kind)
    socket.bind(f"tcp://{connection['ip']}:{connection[name + '_port']}")
    return socket


shell, control = bound(zmq.ROUTER, "shell"), bound(zmq.ROUTER, "control")
if "taken" in sys.argv:
    bound(zmq.ROUTER, "shell")
iopub, stdin, heartbeat = bound(zmq.PUB, "iopub"), bound(zmq.ROUTER, "stdin"), bound(zmq.REP, "hb")


def send(socket, first, kind, parent, content):
    header = {"msg_id": str(uuid.uuid4()), "msg_type": kind, "session": "odd", "username": "", "version": "5.0"}
    parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
    signature = hmac.new(connection["key"].encode(), b"".join(parts), hashlib.sha256).hexdigest()
    socket.send_multipart([first, b"<IDS|MSG>", signature.encode(), *parts])


poller = zmq.Poller()
poller.register(shell, zmq.POLLIN)
poller.register(control, zmq.POLLIN)
while True:
    for socket, _ in poller.poll():
        frames = socket.recv_multipart()
        parent = json.loads(frames[3])
        if parent["msg_type"] == "shutdown_request":
            sys.exit(0)
        if parent["msg_type"] == "interrupt_request":
            send(iopub, b"stream", "stream", {}, {"name": "stdout", "text": "interrupted"})
        elif parent["msg_type"] == "execute_request":
            send(iopub, b"stream", "stream", parent, {"name": "stdout", "text": "executed"})
        send(socket, frames[0], parent["msg_type"].replace("request", "reply"), parent, {})
