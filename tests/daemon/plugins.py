"""Plugins that fail, and what the log says of them."""

FAILING = """
import sys
import trio
from rtpipe import Plugin, Refused

class Faulty(Plugin[None, None]):
    async def {hook}(self, {arguments}):
        {body}
"""
BODIES = {
    "raise": 'raise ValueError("no")',
    "exit": "sys.exit(3)",
    "hang": "await trio.sleep_forever()",
}


def named(log):
    return [line for line in log if "plugin faulty" in line]


def lines(caplog):
    return [record.getMessage() for record in caplog.records]
