"""A marked key, token and card in one run of the real daemon: 0 hits in all that it shows to operators."""

import base64
import json
import os
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trio

from rtpipe.cli.main import main
from tests.daemon.kit import KEY_VARIABLE, bearer, client, refused, running, simulated
from tests.daemon.lines import ask as ask_admin
from tests.daemon.lines import asked, speaking
from tests.daemon.test_one_voice import TOOL
from tests.daemon.wire import WAIT_S, ask, get
from tests.marked import CARD

MARK = "MARKED"
CLIENT_KEY = f"sk-{MARK}-of-the-client"
UPSTREAM_KEY = f"sk-{MARK}-of-the-gateway"
COLLECTOR_KEY = f"{MARK}-of-the-collector"
DIGITS = CARD.replace(" ", "")
TEXT = {"type": "realtime", "output_modalities": ["text"]}


def _part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


TOKEN = f"{_part({'alg': 'ES256'})}.{_part({'iss': 'https://nobody.example', 'sub': MARK})}.{MARK}"


@contextmanager
def collecting():
    """An OTLP receiver: the bodies it got, by path, and the headers."""
    got, headers = {"/v1/traces": b"", "/v1/metrics": b""}, []
    metrics_came = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got[self.path] += self.rfile.read(int(self.headers["Content-Length"]))
            headers.append(self.headers["x-key"])
            if b"rtpipe_sessions_ended" in got["/v1/metrics"]:
                metrics_came.set()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield got, headers, metrics_came, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


CONFIG = """
[log]
level = "debug"
format = "json"
[admin]
socket = "{place}"
[audit]
file = "{audit}"
[plugins.tracing]
endpoint = "{endpoint}"
content = true
metrics_interval_s = 1
headers = {{ "x-key" = {{ env = "TEST_COLLECTOR_KEY" }} }}
[plugins.tool-dispatcher]
record_arguments = true
[plugins.auth.client_secrets]
signing_key = {{ env = "TEST_SIGNING_KEY" }}
"""


async def minted(address):
    """A client secret."""
    head = (
        f"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CLIENT_KEY}\r\n"
        "Content-Length: 2\r\n\r\n{}"
    )
    answer = await ask(address, head.encode())
    return json.loads(answer.rest)["value"]


async def converse(app):
    """A card said by the caller, repeated by the model, and given to a tool."""
    await app.tell("session.update", session={**TEXT, "instructions": f"The card is {CARD}."})
    read = ""
    for words in (f"my card is {CARD}", f'call lookup {{"card": "{CARD}", "plain": {DIGITS}}}'):
        content = [{"type": "input_text", "text": words}]
        item = {"type": "message", "role": "user", "content": content}
        await app.tell("conversation.item.create", item=item)
        await app.tell("response.create")
        read += str(await app.until("response.done"))
    read += str(await app.until("response.done"))  # with what the tool said
    assert CARD in read
    await app.tell(f"nonsense {CARD}", event_id=DIGITS)
    await app.tell("conversation.item.retrieve", item_id=DIGITS)
    await app.until("error")


async def test_marked_secrets_in_no_output_of_all(file, plugin, place, tmp_path, capfd):
    audit, recording = tmp_path / "audit.jsonl", tmp_path / "call.jsonl"
    environment = {
        **plugin(TOOL, "lookup"),
        KEY_VARIABLE: UPSTREAM_KEY,
        "TEST_COLLECTOR_KEY": COLLECTOR_KEY,
        "TEST_SIGNING_KEY": f"{MARK}{os.urandom(16).hex()}",
    }
    chain = ["tracing", "auth", "lookup", "tool-dispatcher", "response-lock"]
    shown = ""
    with collecting() as (got, headers, metrics_came, endpoint):
        more = CONFIG.format(place=place, audit=audit, endpoint=endpoint)
        path = file("{model}", chain=chain, key=CLIENT_KEY, more=more, listen="metrics = true")
        async with simulated(api_keys=frozenset({UPSTREAM_KEY})) as model:
            path.write_text(path.read_text().replace("{model}", model))
            async with running(path, environment=environment) as gateway, speaking(place, role="tap") as tap:
                assert (await tap.next())["type"] == "rtpipe.welcome"
                secret = await minted(gateway.address)
                assert secret.startswith("ek_")
                for key in (CLIENT_KEY, secret):
                    async with client(gateway.address, headers=bearer(key)) as app:
                        await app.until("session.created")
                        (session,) = (await asked(place, "/sessions"))["sessions"]
                        recording.unlink(missing_ok=True)
                        words = ["record", session["id"], str(recording), "--socket", str(place)]
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(trio.to_thread.run_sync, partial(main, words))
                            with trio.fail_after(WAIT_S):
                                while "by" not in (seen := await tap.next()).get("fields", {}):
                                    shown += json.dumps(seen)
                            await converse(app)
                            shown += str((await ask_admin(place, f"/sessions/{session['id']}")).rest)
                            await app.close(4000, CARD)
                    shown += recording.read_text()
                    while seen.get("fact") != "SessionClosed":
                        seen = await tap.next()
                        shown += json.dumps(seen)
                for key in (TOKEN, f"{secret}x", f"sk-{MARK}-wrong"):
                    assert (await refused(gateway.address, headers=bearer(key))).status == 401
                for target in ("/sessions", "/plugins", "/metrics"):
                    shown += str((await ask_admin(place, target)).rest)
                exposed = await get(gateway.address, "/metrics", [])
                assert exposed.status == 200
                shown += str(exposed.rest)
                # By themselves, every second: the plugin reads what the gateway counts.
                assert await trio.to_thread.run_sync(metrics_came.wait, WAIT_S)
                shown += str((await get(gateway.address, "/healthz", [])).rest)
        spans = got["/v1/traces"].decode(errors="replace")
    assert set(headers) == {COLLECTOR_KEY}
    outputs = {
        "spans": spans,
        "metrics": got["/v1/metrics"].decode(errors="replace"),
        "log": gateway.out + gateway.err,
        "audit": audit.read_text(),
        "taps, recordings, admin": shown,
        "the recording verb": "".join(capfd.readouterr()),
    }
    for name, text in outputs.items():
        assert text, name
        for marked in (MARK, secret, secret[-20:], TOKEN, CARD[:9], DIGITS[:9]):
            assert marked not in text, (name, marked)
    # What was sent was the redacted content, not nothing.
    for name in ("spans", "taps, recordings, admin"):
        assert "[card]" in outputs[name]
    assert "gen_ai.tool.call.arguments" in spans
    assert "gen_ai.output.messages" in spans
    assert "SessionClosed" in outputs["audit"]
