"""TLS against trio's, the standard library's and OpenSSL's own, however the bytes are cut."""

import os
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from rtpipe.transport import tls
from rtpipe.transport.contexts import client_context, server_context
from rtpipe.transport.tls import TlsFailed, TlsStream
from tests.transport.certificates import Pair, make

WAIT_S = 20.0


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("tls"), "localhost")


class Choppy(trio.abc.HalfCloseableStream):
    """A stream that delivers and sends in pieces of any size; `blocked` holds sending up."""

    def __init__(self, inner: trio.StapledStream, seed: int = 0, most: int = 20_000) -> None:
        self.inner = inner
        self.blocked = False
        self._free = trio.Event()
        self._random = random.Random(seed)
        self._most = most

    def _size(self) -> int:
        return self._random.choice((1, self._random.randint(1, 50), self._random.randint(1, self._most)))

    def unblock(self) -> None:
        self.blocked = False
        self._free.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.inner.receive_some(min(max_bytes or self._most, self._size())))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.blocked:
            await self._free.wait()
        view = memoryview(data)
        while view:
            size = self._size()
            await self.inner.send_all(view[:size])
            view = view[size:]

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


Either = TlsStream | trio.SSLStream  # type: ignore[type-arg]


@asynccontextmanager
async def joined(
    pair: Pair, server: type[Either] = TlsStream, client: type[Either] = TlsStream, seed: int = 0
) -> AsyncIterator[tuple[Either, Either, Choppy, Choppy]]:
    """Both ends in service, and what is below them."""
    below_server, below_client = (Choppy(end, seed) for end in memory_stream_pair())
    ends = (
        server(below_server, server_context(pair.certificate, pair.key), server_side=True),  # type: ignore[arg-type]
        client(below_client, client_context(pair.authority), server_hostname="localhost"),  # type: ignore[arg-type]
    )
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.do_handshake)
        yield *ends, below_server, below_client
        for end in ends:
            await trio.aclose_forcefully(end)


async def read_all(stream: trio.abc.ReceiveStream, sizes: Callable[[], int | None] = lambda: None) -> bytes:
    data = b""
    while more := await stream.receive_some(sizes()):
        data += more
    return data


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.sampled_from([(TlsStream, TlsStream), (TlsStream, trio.SSLStream), (trio.SSLStream, TlsStream)]),
    messages=st.tuples(*[st.lists(st.integers(0, 70_000), max_size=6)] * 2),
    seed=st.integers(0, 2**16),
)
def test_both_directions_at_once_whatever_the_pieces(
    pair: Pair, kinds: tuple[type[Either], type[Either]], messages: tuple[list[int], list[int]], seed: int
) -> None:
    dice = random.Random(seed)
    sent = [[dice.randbytes(size) for size in sizes] for sizes in messages]
    got = [b"", b""]

    async def write(end: Either, pieces: list[bytes]) -> None:
        for piece in pieces:
            await end.send_all(piece)

    async def read(end: Either, index: int, size: int) -> None:
        while len(got[index]) < size:
            got[index] += await end.receive_some(dice.choice((None, 1, 100, 16 * 2**10, 2**17)))

    async def main() -> None:
        async with joined(pair, *kinds, seed=seed) as (*ends, _, _), trio.open_nursery() as nursery:
            for index, end in enumerate(ends):
                nursery.start_soon(write, end, sent[index])
                nursery.start_soon(read, end, index, sum(messages[1 - index]))

    trio.run(main)
    assert got == [b"".join(sent[1]), b"".join(sent[0])]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_against_the_standard_library(pair: Pair, version: ssl.TLSVersion) -> None:
    context = client_context(pair.authority)
    context.maximum_version = version
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT_S)

    def talk() -> tuple[str | None, str | None, int]:
        with context.wrap_socket(theirs, server_hostname="localhost") as secured:
            total = 0
            while total < 2**20:
                total += len(secured.recv(2**16))
            secured.sendall(b"y" * 2**20)
            agreed = secured.selected_alpn_protocol(), secured.version()
            secured.unwrap().close()
            return *agreed, total

    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    server = TlsStream(stream, server_context(pair.certificate, pair.key), server_side=True)
    result: list[object] = []

    async def in_thread() -> None:
        result.append(await trio.to_thread.run_sync(talk))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread)
            await server.do_handshake()
            await server.send_all(b"x" * 2**20)
            assert await read_all(server) == b"y" * 2**20
            await server.aclose()
    assert result == [("http/1.1", version.name.replace("_", "."), 2**20)]


# --- how it ends


async def test_a_farewell_is_the_end_and_the_other_direction_goes_on(pair: Pair) -> None:
    async with joined(pair) as (server, client, *_):
        await client.send_all(b"question")
        await client.send_eof()  # type: ignore[union-attr]
        assert await read_all(server) == b"question"
        assert await server.receive_some() == b""
        await server.send_all(b"answer")
        await server.aclose()
        assert await read_all(client) == b"answer"
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"more")
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_some()


async def test_closing_says_farewell_even_when_cancelled(pair: Pair) -> None:
    async with joined(pair) as (server, client, *_):
        await trio.aclose_forcefully(server)
        assert await client.receive_some() == b""


async def test_closing_does_not_wait_for_a_reader(pair: Pair) -> None:
    async with joined(pair) as (server, client, below, _):
        below.blocked = True
        begun = trio.current_time()
        await server.aclose()
        assert trio.current_time() - begun < 5
        with pytest.raises(trio.BrokenResourceError, match="farewell"):
            await client.receive_some()


async def test_an_end_without_farewell_is_abnormal(pair: Pair) -> None:
    async with joined(pair) as (server, client, below, _):
        await server.send_all(b"half of")
        await below.aclose()
        assert await client.receive_some() == b"half of"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="without TLS's farewell"):
                await client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


async def test_what_came_before_rubbish_is_delivered(pair: Pair) -> None:
    async with joined(pair) as (server, client, below, _):
        await server.send_all(b"good")
        await below.inner.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        await wait_all_tasks_blocked()
        received = b""
        with pytest.raises(TlsFailed, match="bad record mac"):  # noqa: PT012
            while True:
                received += await client.receive_some()
        assert received == b"good"


async def test_a_cancelled_send_breaks_the_stream(pair: Pair) -> None:
    async with joined(pair) as (server, _, below, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.send_all(b"nothing has left yet")
        await server.send_all(b"so this one can")
        below.blocked = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"x")
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await server.send_all(b"y")
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError, match="broken off"):
            await server.send_all(b"z")


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    async with joined(pair) as (server, client, *_):
        await server.send_all(b"0123456789")
        received = await client.receive_some(2)
        while len(received) < 10:
            with trio.CancelScope() as scope:
                scope.cancel()
                received += await client.receive_some(2)
            received += await client.receive_some(2)
        assert received == b"0123456789"


# --- handshakes that fail


async def failing(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> list[BaseException]:
    """What both ends of a handshake raise."""
    below = [trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()]
    ends = [
        TlsStream(below[0], server, server_side=True),
        TlsStream(below[1], client, server_hostname=name),
    ]
    raised: list[BaseException] = []

    async def shake(end: TlsStream) -> None:
        try:
            await end.do_handshake()
            await end.receive_some()
        except trio.BrokenResourceError as error:
            raised.append(error)
        await end.aclose()

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(shake, end)
    return raised


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
async def test_old_tls_is_refused_by_either_side(pair: Pair) -> None:
    def old(context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        return context

    server, client = server_context(pair.certificate, pair.key), client_context(pair.authority)
    said = " ".join(map(str, await failing(server, old(client_context(pair.authority)))))
    assert "unsupported protocol" in said
    assert "alert protocol version" in said
    said = " ".join(map(str, await failing(old(server_context(pair.certificate, pair.key)), client)))
    assert "unsupported protocol" in said


async def test_certificates_are_verified(pair: Pair, tmp_path: Path) -> None:
    trusted = client_context(pair.authority)
    for made, name, said in (
        (make(tmp_path / "1", "localhost", signer="strangers"), "localhost", "unable to get local issuer"),
        (make(tmp_path / "2", "other.test"), "localhost", "Hostname mismatch"),
        (make(tmp_path / "3", "localhost"), "127.0.0.1", "IP address mismatch"),
        (make(tmp_path / "4", "localhost", days=-1), "localhost", "certificate has expired"),
    ):
        raised = await failing(server_context(made.certificate, made.key), trusted, name)
        assert any(str(error).startswith(f"certificate verify failed: {said}") for error in raised), raised


async def test_a_peer_that_leaves_in_the_handshake(pair: Pair) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    stream = TlsStream(ours, server_context(pair.certificate, pair.key), server_side=True)
    with pytest.raises(trio.BrokenResourceError, match="broken off in the handshake"):
        await stream.do_handshake()


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 100, b"SSH-2.0-x\r\n" * 9, os.urandom(2000), b"\x16\x03\x01\xff\xff"]
)
async def test_rubbish_instead_of_a_handshake(pair: Pair, rubbish: bytes) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(rubbish)
    await theirs.send_eof()
    stream = TlsStream(ours, server_context(pair.certificate, pair.key), server_side=True)
    with trio.fail_after(WAIT_S), pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()


# --- key updates, which only OpenSSL's own client can be told to send


class OpenSsl:
    """``openssl s_client``, which takes K for a key update that asks for one in return."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = b""

    async def type(self, line: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line + b"\n")

    async def until(self, text: bytes, times: int = 1) -> None:
        assert self.process.stdout is not None
        while self.said.count(text) < times:
            more = await self.process.stdout.receive_some()
            assert more, self.said
            self.said += more


@asynccontextmanager
async def openssl(pair: Pair) -> AsyncIterator[tuple[TlsStream, Choppy, OpenSsl]]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the openssl program")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    command = [program, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-msg"]
    start = partial(
        trio.run_process,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery, listener:
            process = await nursery.start(start)
            below = Choppy(await listener.accept())  # type: ignore[arg-type]
            stream = TlsStream(below, server_context(pair.certificate, pair.key), server_side=True)
            await stream.do_handshake()
            program_ = OpenSsl(process)
            await program_.until(b"read R BLOCK")
            yield stream, below, program_
            await trio.aclose_forcefully(stream)
            process.kill()


async def test_a_key_update_does_not_make_a_reader_wait_for_a_writer(pair: Pair) -> None:
    async with openssl(pair) as (stream, below, client):
        below.blocked = True
        await client.type(b"K")
        await client.until(b"KEYUPDATE")
        await client.type(b"hello")
        assert await stream.receive_some() == b"hello\n"
        below.unblock()
        await stream.send_all(b"and back")
        await client.until(b"and back")
        assert b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate" in client.said
        await client.type(b"with the new keys")
        assert await stream.receive_some() == b"with the new keys\n"


async def test_a_flood_of_key_updates_ends_the_stream(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_REPLY_BYTES", 100)
    async with openssl(pair) as (stream, _, client):
        with pytest.raises(trio.BrokenResourceError, match="more key updates"):  # noqa: PT012
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    for n in range(1, 10):
                        await client.type(b"K")
                        await client.until(b"KEYUPDATE", n)

                nursery.start_soon(flood)
                try:
                    await stream.receive_some()
                except trio.BrokenResourceError as error:
                    failure = error
                nursery.cancel_scope.cancel()
            raise failure


# --- files


def test_files_that_cannot_be_used(pair: Pair, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "localhost")
    encrypted, empty = tmp_path / "encrypted.pem", tmp_path / "empty.pem"
    empty.write_text("")
    encrypted.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgj2f4Q5H6mUgICCAAw\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    for certificate, key, said in (
        (empty, pair.key, f"{empty} has no certificate in PEM form in it"),
        (pair.certificate, empty, f"{empty} has no private key in PEM form in it"),
        (pair.key, pair.certificate, f"{pair.key} has no certificate in PEM form in it"),
        (pair.certificate, other.key, f"{other.key} is not the key of {pair.certificate}"),
        (pair.certificate, encrypted, str(encrypted)),
    ):
        with pytest.raises(ValueError) as caught:
            server_context(certificate, key)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        server_context(pair.certificate, tmp_path / "none.pem")
    for file, text in (
        (empty, b""),
        (empty, b"\xff"),
        (empty, b"-----BEGIN CERTIFICATE-----\nx"),
        (pair.key, None),
    ):
        if text is not None:
            file.write_bytes(text)
        with pytest.raises(ValueError, match=rf"{file.name} has no certificate in PEM form"):
            client_context(file)
    with pytest.raises(FileNotFoundError):
        client_context(tmp_path / "none.pem")


def test_an_encrypted_key_is_refused_without_asking(pair: Pair, tmp_path: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the openssl program")
    key = tmp_path / "key.pem"
    command = [program, "pkcs8", "-topk8", "-in", pair.key, "-out", key, "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    with pytest.raises(ValueError, match=r"key\.pem is encrypted"):
        server_context(pair.certificate, key)
