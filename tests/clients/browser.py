"""A browser without a window, on a page of ours that talks to the daemon."""

import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trio

from tests.clients import install
from tests.clients.rows import Row
from tests.clients.runs import TURNS as COMMON
from tests.clients.runs import Turn, compared
from tests.clients.scene import Place, Scene, material

HERE = Path(__file__).parent
TURNS = (*COMMON, Turn("wrong key", reaches_model=False))
FOREIGN_TURNS = ("foreign origin", "foreign origin without a key")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LIMIT_S = 90


class Site:
    """Serves the page, and takes what the page reports."""

    def __init__(self) -> None:
        site = self
        self.files: dict[str, tuple[str, str]] = {}
        """Content type and text, by path."""
        self.reports: queue.Queue[str] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, text = site.files.get(self.path, ("text/plain", ""))
                self._answer(200 if text else 404, kind, text.encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(200, "text/plain", b"")
                site.reports.put(body.decode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"
        """What the daemon allows. The same page under the name of localhost has another."""

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


async def browser(site: Site, scene: Scene) -> list[Row]:
    """Open the page from where it may connect, at both places, and from where it may not."""
    await trio.to_thread.run_sync(install.debian, "chromium")
    row = Row("Chromium", install.version_of("chromium", "--version"), "TCP")

    async def run(place: Place, origin: str = site.origin) -> str:
        page = (HERE / "page.html").read_text("utf-8")
        page = page.replace('"{material}"', material()).replace('"{snippet}";', place.snippet("browser"))
        site.files["/"] = ("text/html", page)
        return await trio.to_thread.run_sync(report, site, f"{origin}/")

    site.files["/turns.mjs"] = ("text/javascript", (HERE / "turns.mjs").read_text("utf-8"))
    with site.served():
        await compared(row, scene, TURNS, run)
        row.read(await run(scene.gateway, f"http://localhost:{site.port}"), FOREIGN_TURNS)
    return [row]


def report(site: Site, url: str, limit_s: float = _LIMIT_S) -> str:
    """What a page says that the browser opens; nothing if its time is over."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["chromium", *OPTIONS, f"--user-data-dir={profile}", url]
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return site.reports.get(timeout=limit_s)
        except queue.Empty:
            return ""
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
