"""The Autobahn test suite against our server and our client: ``python -m tests.autobahn [CASES…]``.

Exits with 1 if a case fails, with 2 if the suite cannot be installed. The reports stay in `.venv/autobahn`.
"""

import json
import socket
import sys
from collections import Counter
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import trio

from tests.autobahn.echo import AGENT, run_client, start_server
from tests.autobahn.install import ENVIRONMENT, NotInstalled, wstest

PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# No compression is negotiated, by design.
COMPRESSION = ("12.*", "13.*")
# Realtime is text, so a binary message is refused with 1003, which the suite does not expect.
BINARY = ("1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*")


def main() -> int:
    """Run both ways; the cases are patterns such as ``9.*``, all without any."""
    try:
        program = wstest()
    except NotInstalled as error:
        sys.stderr.write(f"{error}\n")
        return 2
    cases = sys.argv[1:] or ["*"]
    failures = trio.run(_both_ways, program, cases)
    return 1 if failures else 0


async def _both_ways(program: Path, cases: list[str]) -> int:
    async with trio.open_nursery() as nursery:
        url = await start_server(nursery)
        spec = {"servers": [{"agent": AGENT, "url": url}], "cases": cases}
        await trio.run_process(_command(program, "fuzzingclient", spec), capture_stdout=True)
        nursery.cancel_scope.cancel()
    failures = _judge("server", ENVIRONMENT / "fuzzingclient")
    async with trio.open_nursery() as nursery:
        url = f"ws://127.0.0.1:{_free_port()}"
        command = _command(program, "fuzzingserver", {"url": url, "cases": cases})
        with open(ENVIRONMENT / "fuzzingserver.log", "wb") as log:  # noqa: ASYNC230
            nursery.start_soon(partial(trio.run_process, command, stdout=log))
            await _until_it_listens(url)
            await run_client(url)
            nursery.cancel_scope.cancel()
    return failures + _judge("client", ENVIRONMENT / "fuzzingserver")


def _command(program: Path, mode: str, spec: dict[str, object]) -> list[str]:
    specification = ENVIRONMENT / f"{mode}.json"
    specification.write_text(json.dumps({"outdir": str(ENVIRONMENT / mode), **spec}))
    return [str(program), "--mode", mode, "--spec", str(specification), "--webport", "0"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_it_listens(url: str) -> None:
    with trio.fail_after(30):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
            except OSError:
                await trio.sleep(0.1)
            else:
                await stream.aclose()
                return


def _judge(side: str, report: Path) -> int:
    """Print what came out for our `side`. Returns how many cases failed."""
    results = json.loads((report / "index.json").read_text())[AGENT]
    verdicts = {case: _verdict(case, result) for case, result in results.items()}
    counts = ", ".join(f"{number} {verdict}" for verdict, number in Counter(verdicts.values()).items())
    sys.stdout.write(f"{side}: {len(verdicts)} cases: {counts}\n")
    failed = [case for case, verdict in verdicts.items() if verdict == "FAILED"]
    for case in failed:
        sys.stdout.write(f"  {case}: {results[case]}\n")
    return len(failed)


def _verdict(case: str, result: dict[str, object]) -> str:
    behavior = {str(result["behavior"]), str(result["behaviorClose"])}
    if any(fnmatch(case, pattern) for pattern in COMPRESSION) and "UNIMPLEMENTED" in behavior:
        return "not negotiated"
    if any(fnmatch(case, pattern) for pattern in BINARY):
        return "refused with 1003" if result["remoteCloseCode"] == 1003 else "FAILED"
    return str(result["behavior"]) if behavior <= PASSED else "FAILED"


if __name__ == "__main__":
    sys.exit(main())
