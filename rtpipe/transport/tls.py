"""TLS over any stream of bytes, with OpenSSL between two buffers in memory."""

import os
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import trio

CLOSE_NOTIFY_S: Final = 0.1
_READ_BYTES: Final = 64 * 2**10
_RECORD_BYTES: Final = 16 * 2**10
_WRITE_BYTES: Final = 256 * 2**10
_REPLY_BYTES: Final = 16 * 2**10


class TlsFailed(trio.BrokenResourceError):
    """The peer's TLS is not acceptable. The text says why; `reason` is OpenSSL's word for it, "" if none."""

    def __init__(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"certificate verify failed: {error.verify_message.rstrip('.')}"
        else:
            text = (error.reason or str(error)).lower().replace("_", " ")
        super().__init__(text)
        self.reason: str = error.reason or ""


class TlsStream(trio.abc.HalfCloseableStream):
    """TLS over `transport`, which it owns. One task receives and one sends, both at once if they like.

    Reading never writes. What a read may owe the peer (the answer to a key update) leaves with the next
    send, which is soon enough for TLS 1.3, so neither side can wait for the other's buffer to empty.
    The end of the transport without TLS's own farewell is a broken stream, not the end of the data.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._sending = False
        self._established = False
        self._closed = False
        self._sent_eof = False
        self._received_eof = False
        self._failure: trio.BrokenResourceError | None = None
        self.sent = 0
        """Bytes given to send_all that have left, or may have."""
        self.unsure = 0
        """Of these, the ones that were being sent when it broke."""

    @property
    def transport(self) -> trio.abc.Stream:
        """What carries it."""
        return self._transport

    @property
    def version(self) -> str | None:
        """The protocol's name, such as ``TLSv1.3``."""
        return self._tls.version()

    @property
    def peer_subject(self) -> str | None:
        """Whom the peer's certificate is for, the most specific name first: ``CN=billing,O=Example``.

        None where it showed no certificate; what it did show has been verified.
        """
        return _subject(self._tls.getpeercert() or {})

    async def do_handshake(self) -> None:
        """Agree on keys; to be done once, before anything else. The caller sets the deadline.

        Raises TlsFailed for what the peer presents, trio.BrokenResourceError when it leaves.
        """
        try:
            while not self._established:
                try:
                    self._tls.do_handshake()
                    self._established = True
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._fill()
            await self._flush()
        except ssl.SSLEOFError:
            raise self._fail(trio.BrokenResourceError("broken off in the handshake")) from None
        except ssl.SSLError as error:
            with trio.move_on_after(CLOSE_NOTIFY_S), suppress(trio.BrokenResourceError):
                await self._flush()  # the alert, by which the peer learns why
            raise self._fail(TlsFailed(error)) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to `max_bytes` of what was sent, empty after the peer's farewell. Cancelling it loses nothing.

        Raises trio.BrokenResourceError when the peer ended without a farewell or its bytes are not TLS's.
        """
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._incoming.pending or self._tls.pending() or self._received_eof or self._failure:
            await trio.lowlevel.checkpoint()
        else:
            await self._fill()
        while (data := self._decrypt(max_bytes or _READ_BYTES)) is None:
            await self._fill()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`. When it is cancelled or raises, part of it may have left and the stream is broken."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._raise_if_ended()
        if self._sent_eof:
            raise trio.ClosedResourceError("nothing can be sent after send_eof")
        await trio.lowlevel.checkpoint_if_cancelled()  # the last moment at which cancelling costs nothing
        self._sending = True
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), _WRITE_BYTES):
                    await self._send(view[start : start + _WRITE_BYTES])
        except ssl.SSLError as error:
            raise self._fail(TlsFailed(error)) from error
        except BaseException:
            self._fail(trio.BrokenResourceError("sending was broken off"))
            raise
        finally:
            self._sending = False

    async def _send(self, data: memoryview) -> None:
        size, rest = len(data), data
        while rest:
            rest = rest[self._tls.write(rest) :]
        encrypted = self._outgoing.read()
        left = self._send_now(encrypted)  # raises where none of it leaves
        self.sent += size
        self.unsure = size
        if left < len(encrypted):
            await self._transport.send_all(encrypted[left:])
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        self.unsure = 0

    def _send_now(self, data: bytes) -> int:
        """Send what leaves without waiting; returns how many bytes, 0 if the transport cannot tell."""
        if not isinstance(self._transport, trio.SocketStream):
            return 0
        try:
            return os.write(self._transport.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """As a trio.abc.SendStream."""
        self._raise_if_ended()
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say farewell in TLS and end the transport's sending; receiving goes on."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._raise_if_ended()
        await self._say_farewell()
        if isinstance(self._transport, trio.abc.HalfCloseableStream):
            await self._transport.send_eof()

    async def aclose(self) -> None:
        """Say farewell if that needs no waiting, and close, also under cancellation."""
        try:
            if self._established and not (self._closed or self._failure or self._sending):
                with (
                    trio.move_on_after(CLOSE_NOTIFY_S, shield=True),
                    suppress(trio.BrokenResourceError, trio.ClosedResourceError),
                ):
                    await self._say_farewell()
        finally:
            self._closed = True
            await self._transport.aclose()

    async def _say_farewell(self) -> None:
        if not self._sent_eof:
            self._sent_eof = True
            with suppress(ssl.SSLError):  # it would like to wait for the peer's own
                self._tls.unwrap()
            await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._transport.send_all(self._outgoing.read())

    async def _fill(self) -> None:
        self._raise_if_ended()
        data = await self._transport.receive_some(_READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self, limit: int) -> bytes | None:
        """What whole records there are, up to `limit` bytes; None if there is none yet."""
        if self._failure is not None:
            raise self._failure
        pieces: list[bytes] = []
        try:
            while limit and not self._received_eof:
                piece = self._tls.read(min(limit, _RECORD_BYTES))
                self._received_eof = not piece
                pieces.append(piece)
                limit -= len(piece)
                if not (self._incoming.pending or self._tls.pending()):
                    break  # as the next read would find out, at the price of an exception
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._received_eof = True
        except ssl.SSLEOFError:
            self._fail(trio.BrokenResourceError("ended without TLS's farewell"))
        except ssl.SSLError as error:
            self._fail(TlsFailed(error))
        if self._outgoing.pending > _REPLY_BYTES and not self._sending:
            self._fail(trio.BrokenResourceError("more key updates than anybody needs"))
        if pieces:
            return b"".join(pieces)
        if self._failure is not None:
            raise self._failure
        return b"" if self._received_eof else None

    def _fail(self, failure: trio.BrokenResourceError) -> trio.BrokenResourceError:
        self._failure = self._failure or failure
        return self._failure

    def _raise_if_ended(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._failure is not None:
            raise self._failure


# What OpenSSL's names are called in RFC 4514 and by `openssl x509 -nameopt RFC2253`; others stay as they are.
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "userId": "UID",
}


def _subject(certificate: Mapping[str, Any]) -> str | None:
    names = certificate.get("subject") or ()
    parts = ("+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in each) for each in names)
    return ",".join(reversed([*parts])) or None


def _escaped(value: str) -> str:
    """RFC 4514, 2.4, so that no value can look like another name."""
    text = re.sub(r'([,+"\\<>;])', r"\\\1", value)
    text = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match[0]):02X}", text)
    if text.startswith(("#", " ")):
        text = "\\" + text
    return f"{text[:-1]}\\ " if value.endswith(" ") and len(value) > 1 else text
