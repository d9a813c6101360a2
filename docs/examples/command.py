"""Sends one command to a bench and prints its result, by an AMQP 1.0 client alone (python-qpid-proton).

python command.py amqp://127.0.0.1:5672 demo '{"op": "read", "device": "pump-plc"}'
"""

import json
import sys
import time
import uuid

from proton import Message
from proton.utils import BlockingConnection

url, bench, command = sys.argv[1:]
connection = BlockingConnection(url, timeout=10)
replies = connection.create_receiver(None, dynamic=True)
commands = connection.create_sender(f"hil.{bench}.commands")
now = time.time()
commands.send(
    Message(
        id=str(uuid.uuid4()),
        reply_to=replies.link.remote_source.address,
        content_type="application/json",
        creation_time=now,
        expiry_time=now + 10,
        inferred=True,  # bytes as a data section
        body=command.encode(),
    )
)
reply = replies.receive(timeout=10)
result = json.loads(bytes(reply.body))
replies.accept()
connection.close()
print(json.dumps(result, indent=2))
sys.exit(0 if result["status"] == "ok" else 1)
