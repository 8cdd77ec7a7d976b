"""Who really called: what balancers say, and what callers would like to be believed."""

import socket
import struct
from contextlib import suppress
from ipaddress import ip_network

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from rtpipe.transport.forwarding import BadProxyHeader, Proxy, parse_ip, read_proxy_header
from rtpipe.transport.http import Headers, RequestRefused

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
BALANCERS = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
FORWARDED = Proxy("forwarded", BALANCERS)


def header(payload, *, family=0x11, command=0x21):
    return SIGNATURE + struct.pack(">BBH", command, family, len(payload)) + payload


def tcp4(source="192.0.2.7", port=4711, more=b""):
    packed = socket.inet_aton(source) + socket.inet_aton("10.0.0.1") + struct.pack(">HH", port, 443)
    return header(packed + more)


def tcp6(source="2001:db9::7", port=4711):
    packed = socket.inet_pton(socket.AF_INET6, source) + bytes(16) + struct.pack(">HH", port, 443)
    return header(packed, family=0x21)


async def read(data, *, ends=True):
    """What is read of *data*, and what is left behind it."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(data)
    if ends:
        await theirs.send_eof()
    found = await read_proxy_header(ours)
    return found, await ours.receive_some(1000)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (tcp4(), ("192.0.2.7", 4711)),
        (tcp4(more=b"\x04\x00\x01x"), ("192.0.2.7", 4711)),  # a TLV
        (tcp6(), ("2001:db9::7", 4711)),
        (tcp6("::ffff:192.0.2.7"), ("192.0.2.7", 4711)),
        (header(b"", command=0x20, family=0), None),  # the balancer itself: a health check
        (header(bytes(216), family=0x31), None),  # a Unix socket
        (header(b"", family=0), None),
    ],
)
async def test_version_2(data, found):
    assert await read(data + b"GET /") == (found, b"GET /")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
        tcp4()[:-1],
        header(b"\x01\x02"),
        header(bytes(8), family=0x21),
        header(bytes(12), command=0x22),
        header(bytes(12), command=0x11),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 5000) + bytes(5000),
    ],
)
async def test_what_is_no_header(data):
    with pytest.raises(BadProxyHeader):
        await read(data)


@given(
    st.binary(max_size=64) | st.builds(lambda cut, more: tcp4()[:cut] + more, st.integers(0, 28), st.binary())
)
def test_whatever_comes(data):
    async def main():
        try:
            await read(data)
        except BadProxyHeader:
            return

    trio.run(main)


@pytest.mark.parametrize(
    ("address", "headers", "caller"),
    [
        ("10.1.1.1", [("x-forwarded-for", "192.0.2.7")], "192.0.2.7"),
        ("10.1.1.1", [("x-forwarded-for", "6.6.6.6, 192.0.2.7")], "192.0.2.7"),
        (
            "10.1.1.1",
            [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7 , 10.9.9.9")],
            "192.0.2.7",
        ),
        ("10.1.1.1", [("x-forwarded-for", "192.0.2.7:4711")], "192.0.2.7"),
        ("10.1.1.1", [("x-forwarded-for", "10.2.2.2, 10.3.3.3")], "10.2.2.2"),
        ("10.1.1.1", [("x-forwarded-for", "192.0.2.7, unknown")], "10.1.1.1"),
        ("10.1.1.1", [("x-forwarded-for", "")], "10.1.1.1"),
        ("10.1.1.1", [], "10.1.1.1"),
        ("192.0.2.9", [("x-forwarded-for", "6.6.6.6")], "192.0.2.9"),
        ("::ffff:10.1.1.1", [("x-forwarded-for", "192.0.2.7")], "192.0.2.7"),
        ("10.1.1.1", [("forwarded", "for=192.0.2.7;proto=https")], "192.0.2.7"),
        ("10.1.1.1", [("forwarded", 'proto=https; For="[2001:db9::7]:4711"')], "2001:db9::7"),
        ("10.1.1.1", [("forwarded", 'for=6.6.6.6;by="a,b", for=192.0.2.7')], "192.0.2.7"),
        ("10.1.1.1", [("forwarded", 'for="192.0.2.7:80", for="[2001:db8::1]"')], "192.0.2.7"),
        ("10.1.1.1", [("forwarded", "for=192.0.2.7, for=_hidden")], "10.1.1.1"),
        ("10.1.1.1", [("forwarded", "proto=https")], "10.1.1.1"),
        ("10.1.1.1", [("forwarded", 'for="10.2.2.2", ,for=192.0.2.7;;')], "192.0.2.7"),
        ("uid 1000", [("x-forwarded-for", "6.6.6.6")], "uid 1000"),
    ],
)
def test_right_to_left(address, headers, caller):
    assert FORWARDED.caller(address, Headers(tuple(headers))) == caller


@pytest.mark.parametrize(
    "value",
    ['for=6.6.6.6;x=", for=192.0.2.7;by="z"', 'for="6.6.6.6, for=192.0.2.7', "for 6.6.6.6", 'for="a"b'],
)
def test_a_quotation_that_the_caller_left_open(value):
    """It must not swallow what the balancer appended."""
    with pytest.raises(RequestRefused) as caught:
        FORWARDED.caller("10.1.1.1", Headers((("forwarded", value),)))
    assert caught.value.status == 400


def test_of_two_headers_one_may_be_the_caller_s():
    headers = Headers((("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.7")))
    with pytest.raises(RequestRefused) as caught:
        FORWARDED.caller("10.1.1.1", headers)
    assert caught.value.status == 400


hop = (
    st.ip_addresses(network="10.0.0.0/8")
    | st.ip_addresses(v=4)
    | st.sampled_from(["unknown", "", '"', ";", "for="])
)


@given(st.lists(hop.map(str), max_size=5), st.sampled_from(["192.0.2.7", "2001:db9::7"]), st.integers(0, 3))
def test_what_the_caller_writes_does_not_count(forged, caller, balancers):
    """However long the list that a caller begins: the balancers append whom they saw."""
    told = [*forged, caller, *(f"10.0.0.{n}" for n in range(balancers))]
    headers = Headers((("x-forwarded-for", ", ".join(told)),))
    assert FORWARDED.caller("10.1.1.1", headers) == caller


@given(st.text(max_size=60))
def test_whatever_is_written(text):
    for name in ("forwarded", "x-forwarded-for"):
        with suppress(RequestRefused):
            found = FORWARDED.caller("10.1.1.1", Headers(((name, text),)))
            assert parse_ip(found) is not None
