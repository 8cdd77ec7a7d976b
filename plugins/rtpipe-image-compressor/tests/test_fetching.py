"""Images from elsewhere: only from hosts that are allowed, and only where these are on the internet."""

import ssl
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

import rtpipe_image_compressor.fetching as fetching
from rtpipe.testing import ChainHarness
from rtpipe_image_compressor import ImageCompressor
from rtpipe_image_compressor.fetching import Fetcher, is_public
from rtpipe_image_compressor.refusal import BadImage

from .making import item, opened, photo, written
from .test_holding import come

PICTURE = written(photo(900, 600), "JPEG", quality=90)


def answer(body, status="200 OK", *headers):
    return (
        "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body
    )


class Site:
    """A host with a certificate that answers everybody alike."""

    def __init__(self):
        self.answer = answer(PICTURE)
        self.requests = []
        self.stands_still = False

    async def handle(self, stream):
        async with stream:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    more = await stream.receive_some()
                    if not more:
                        return
                    head += more
                self.requests.append(head.decode())
                if self.stands_still:
                    await trio.sleep_forever()
                await stream.send_all(self.answer)
            except trio.BrokenResourceError:
                return


@asynccontextmanager
async def site(monkeypatch, tmp_path, name="cdn.example", **options):
    """A site that is known as cdn.example and taken for public, and a chain that may fetch from it."""
    authority, served = trustme.CA(), Site()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        port = listener.transport_listener.socket.getsockname()[1]

        async def resolved(host, asked_port):
            assert (host, asked_port) == ("cdn.example", port)
            return "127.0.0.1"

        monkeypatch.setattr(fetching, "_public_address", resolved)
        nursery.start_soon(trio.serve_listeners, served.handle, [listener])
        served.url = f"https://cdn.example:{port}/a/b.jpg?c=d"
        options = {"fetch_from": [f"cdn.example:{port}"], **options}
        async with ChainHarness({"image-compressor": (ImageCompressor, options)}) as chain:
            yield served, chain
        nursery.cancel_scope.cancel()


async def refusal(chain, url):
    await chain.client.send(item(url))
    (told,) = await come(chain.client)
    assert told["error"]["event_id"] == "e1"
    return told["error"]["code"]


async def test_an_image_is_fetched_from_an_allowed_host(monkeypatch, tmp_path):
    async with site(monkeypatch, tmp_path) as (served, chain):
        await chain.client.send(item(served.url))
        (got,) = await come(chain.upstream)
        assert opened(got["item"]["content"][0]["image_url"]).size == (800, 533)
        (request,) = served.requests
        assert request.startswith("GET /a/b.jpg?c=d HTTP/1.1\r\n")
        assert f"host: {served.url[8:].partition('/')[0]}" in request.lower()


@pytest.mark.parametrize(
    "served_answer",
    [
        answer(b"", "302 Found", "Location: http://169.254.169.254/"),
        answer(b"no", "404 Not Found"),
        answer(PICTURE, "200 OK", "Content-Encoding: gzip"),
        b"nonsense\r\n\r\n",
    ],
)
async def test_nothing_but_the_image_itself_is_taken(monkeypatch, tmp_path, served_answer):
    async with site(monkeypatch, tmp_path) as (served, chain):
        served.answer = served_answer
        assert await refusal(chain, served.url) == "image_fetch_failed"
        assert len(served.requests) == 1


async def test_what_is_too_large_is_not_read_to_its_end(monkeypatch, tmp_path):
    async with site(monkeypatch, tmp_path, max_bytes=1024) as (served, chain):
        served.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000
        assert await refusal(chain, served.url) == "image_too_large"


async def test_a_host_that_says_nothing_has_timeout_s(monkeypatch, tmp_path):
    async with site(monkeypatch, tmp_path, timeout_s=0.3) as (served, chain):
        served.stands_still = True
        assert await refusal(chain, served.url) == "image_timed_out"


async def test_the_certificate_has_to_be_the_name_s(monkeypatch, tmp_path):
    async with site(monkeypatch, tmp_path, name="another.example") as (served, chain):
        assert await refusal(chain, served.url) == "image_fetch_failed"
        assert served.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/",
        "https://cdn.example:8443/",
        "https://cdn.example.evil/",
        "https://evil/cdn.example",
        "https://cdn.example@evil/",
        "https://me:secret@cdn.example/",
        "https://cdn.example\\@evil/",
        "ftp://cdn.example/",
        "https://[::1/",
    ],
)
def test_every_other_place_is_refused(url):
    with pytest.raises(BadImage) as caught:
        Fetcher(["cdn.example"], 1).check(url)
    assert caught.value.code == "image_url_not_allowed"


def test_the_case_of_a_host_and_the_usual_port_do_not_matter():
    fetcher = Fetcher(["cdn.example"], 1)
    assert fetcher.check("https://CDN.example:443/x").host == "cdn.example"


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:192.168.0.1"], ["64:ff9b::a9fe:a9fe"], []],
)
async def test_a_name_with_an_address_inside_is_refused(monkeypatch, answers):
    async def getaddrinfo(*_, **__):
        return [(0, 0, 0, "", (each, 443)) for each in answers]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    fetcher = Fetcher(["cdn.example"], 1)
    with pytest.raises(BadImage) as caught:
        await fetcher.fetch(fetcher.check("https://cdn.example/"))
    assert caught.value.code == "image_url_not_allowed"


def test_public_addresses():
    inside = """
        0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.168.1.1 224.0.0.1
        :: ::1 fc00::1 fe80::1 fe80::1%eth0 ff02::1 ::ffff:10.0.0.1 2002:0a00:0001::1 64:ff9b::10.0.0.1
        nonsense
    """
    assert not [each for each in inside.split() if is_public(each)]
    assert all(map(is_public, ("93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34")))
