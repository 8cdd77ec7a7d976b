"""Reserves, settles and puts without end; writes a line for each answer it got, as soon as it got it."""

import os
import sys

import trio

from rtpipe.store import Namespace, Store

TASKS = 4


def reserved(number: int) -> int:
    return 100 + number % 50


def real(number: int) -> int:
    """Now less than was reserved, now more."""
    return 80 + number * 7 % 90


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def spend(space: Namespace, start: int, name: str) -> None:
    number = start
    while True:
        id = f"{name}:{number}"
        await space.reserve({"day": None, "all": None}, reserved(number), id=id)
        tell(f"reserved {id}")
        if number % 5:  # each fifth is never settled
            await space.settle(id, real(number))
            tell(f"settled {id}")
        await space.put(id, id.encode() * 50)
        tell(f"put {id}")
        number += TASKS


async def main(path: str, name: str) -> None:
    async with await Store.open(path) as store, trio.open_nursery() as nursery:
        for task in range(TASKS):
            nursery.start_soon(spend, store.namespace("one"), task, name)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
