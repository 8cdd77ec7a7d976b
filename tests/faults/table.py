"""Every fault, what is expected of the gateway, and how that is seen: live here, or by tests that show it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults import cases, clock, disk, networks
from tests.faults.cases import Case
from tests.faults.killed import killed
from tests.faults.persisted import killed_in_sessions
from tests.faults.restarts import killed_in_talk


@dataclass(frozen=True)
class Row:
    """*live* is done to a daemon that other cases met before, *apart* to one of its own; *tests* show the
    rest, or the same with more patience. *missing*: what of it cannot be shown here, and why.
    *is_long*: it waits longer than the gate has time for."""

    case: str
    expected: str
    live: Case | None = None
    tests: tuple[str, ...] = field(default=())
    missing: str = ""
    apart: Callable[[], Awaitable[str]] | None = None
    is_long: bool = False


def _tests(*names: str) -> tuple[str, ...]:
    """``"daemon/test_tls.py::test_x"`` to the address that pytest knows."""
    return tuple(name if name.startswith("plugins/") else f"tests/{name}" for name in names)


ROWS = (
    Row(
        "connects and sends nothing",
        "408 or closed within handshake_timeout_s",
        cases.silent,
        _tests("transport/test_server.py::test_a_head_that_does_not_come_is_closed_in_10_s"),
    ),
    Row(
        "sends its request a byte at a time",
        "408 or closed, the deadline is for all of it",
        cases.trickle,
        _tests("transport/test_server.py::test_a_head_that_trickles_is_closed_in_10_s"),
    ),
    Row(
        "400 idle sockets",
        "a client gets in at once; descriptors come back",
        cases.idle_crowd,
        _tests("daemon/test_bounds.py"),
    ),
    Row("endless, long or many headers; a long URL", "431, 431, 431, 414 with a body", cases.long_heads),
    Row("no WebSocket; version 12; no key; no or two Hosts", "426, 426, 400, 400, 400", cases.no_handshake),
    Row("unknown path; one with ..", "404, 404", cases.unknown_paths),
    Row("a foreign Origin", "403", cases.foreign_origin, _tests("daemon/test_routes.py::test_origins")),
    Row(
        "no key, a wrong key",
        "401 before the upgrade; the key is in no output",
        cases.no_key,
        _tests("daemon/test_secrecy.py"),
    ),
    Row(
        "guessing keys from one address",
        "a delay that grows for that address alone",
        tests=("plugins/rtpipe-auth/tests/test_guessing.py",),
    ),
    Row("reserved opcode, long control frame, code 999", "close 1002, the frame sent", cases.bad_frames),
    Row("bad UTF-8", "close 1007", cases.bad_utf8),
    Row(
        "the Autobahn suite",
        "0 failed",
        tests=_tests("transport/test_frames.py"),
        missing="the suite itself: python -m tests.autobahn, which wants a Python 2.7",
    ),
    Row(
        "a message that is too long",
        "close 1009 at the limit, memory flat",
        cases.too_long,
        _tests("transport/test_engine.py::test_64_mib_are_1009_with_flat_memory"),
    ),
    Row(
        "a flood of pings, pongs unread",
        "memory flat, or closed",
        cases.ping_flood,
        _tests(
            "transport/test_engine.py::test_a_flood_of_pings_whose_pongs_nobody_reads_stays_small_and_ends"
        ),
    ),
    Row("a compressed frame", "compression is not negotiated; close 1002", cases.compressed),
    Row("JSON too deep, NaN, 1e999, no event, keys twice", "error events; it lives", cases.odd_json),
    Row("an integer of 5,000 digits; odd numbers", "error event; not rewritten", cases.numbers),
    Row("a binary frame", "error event, or close 1003", cases.binary),
    Row(
        "unknown types and fields, either way",
        "byte-exact",
        tests=_tests("daemon/test_bytes.py::test_any_event_travels_unchanged"),
    ),
    Row(
        "the upstream is cut in mid response",
        "told within 1 s; error, then 1011 or 1014, or the session goes on",
        cases.upstream_cut,
    ),
    Row(
        "the upstream closes 1008, 3000, 4000",
        "the same code and reason",
        cases.upstream_closes,
        _tests("session/test_session.py::test_upstream_close_codes_reach_the_client"),
    ),
    Row(
        "the upstream refuses",
        "its status at the client's handshake",
        tests=_tests("daemon/test_dialling.py::test_a_refusal_of_the_upstream_reaches_the_client"),
    ),
    Row(
        "the upstream hangs in connect or handshake",
        "504; a client that leaves ends the dial",
        tests=_tests(
            "daemon/test_dialling.py::test_an_upstream_that_hangs_in_connect",
            "daemon/test_dialling.py::test_an_upstream_that_hangs_in_the_handshake",
            "daemon/test_dialling.py::test_a_client_that_leaves_ends_the_dial",
        ),
    ),
    Row(
        "a peer that is a black hole; one that never answers pings",
        "given up after two intervals, 1011; no timer on one that thinks",
        tests=_tests(
            "transport/test_engine.py::test_a_peer_that_never_answers_pings_is_given_up_in_40_s",
            "transport/test_engine.py::test_a_peer_that_answers_pings_may_think_for_hours",
        ),
    ),
    Row(
        "every packet from and to clients is swallowed",
        "noticed within 40 s; the session ends, or is parked and found again",
        apart=networks.clients_vanish,
        is_long=True,
    ),
    Row(
        "every packet from and to the model is swallowed",
        "noticed within two intervals, replaced once it can be reached; the cut answer fails",
        apart=networks.model_vanishes,
    ),
    Row(
        "the kernel resets established connections",
        "noticed within 1 s; the model's is replaced, a client's ends its session",
        apart=networks.resets,
    ),
    Row(
        "3 % of all packets are lost at 20 Mbit/s; 10 % one way",
        "every client passes",
        apart=networks.loss,
    ),
    Row(
        "the client is reset",
        "noticed within 1 s; parked, or cancelled at once and the upstream closed after its bill",
        cases.client_resets,
        _tests(
            "session/test_life.py::test_a_client_that_is_gone_has_its_answer_cancelled_and_its_bill_heard"
        ),
    ),
    Row("300 that are reset in their handshake", "nothing of them stays", cases.half_handshakes),
    Row(
        "a reader that stopped",
        "bounded, the upstream paused, others live, closed after write_deadline_s",
        cases.stopped_reader,
        _tests("daemon/test_endings.py::test_a_client_that_stops_reading"),
    ),
    Row(
        "a plugin raises, hangs, returns junk, calls sys.exit",
        "as its policy says; never the process",
        tests=_tests(
            "chain/test_guard.py", "daemon/test_plugins.py::test_a_daemon_process_outlives_what_plugins_do"
        ),
    ),
    Row(
        "a plugin blocks the loop",
        "named by a thread; the service's watchdog is not fed",
        tests=_tests("daemon/test_watchdog.py"),
    ),
    Row(
        "a plugin's response.create against the client's",
        "the refusal reaches whoever asked",
        tests=("plugins/rtpipe-response-lock/tests/test_voices.py",),
    ),
    Row(
        "SIGTERM with a response in flight",
        "/readyz fails, it is finished, 1012, exit 0",
        tests=_tests("daemon/test_drain.py"),
    ),
    Row(
        "restarts while 100 clients keep connecting",
        "0 refused",
        tests=_tests("daemon/test_sockets.py::test_nobody_is_refused_during_an_upgrade"),
    ),
    Row(
        "kill -9 again and again under load",
        "serving again in 1 s; nothing acknowledged is lost, nothing torn is read",
        apart=killed,
        tests=_tests("store/test_crash.py"),
    ),
    Row(
        "kill -9 while clients talk through all plugins",
        "none refused at a socket that stays; served in 1 s; the books are right",
        apart=killed_in_talk,
    ),
    Row(
        "kill -9 while clients talk in sessions that are written down",
        "each finds its own; what is missing is the newest, and each item is there once",
        apart=killed_in_sessions,
        tests=_tests("daemon/test_keeper_bound.py::test_nothing_older_than_promised_is_missing"),
    ),
    Row(
        "the disk is full",
        "refused by policy, an alarm; served again when there is room; the books are right",
        apart=disk.full,
        tests=_tests("store/test_writer.py::test_a_full_disk"),
    ),
    Row(
        "fsync fails",
        "the same; never retried as if well",
        apart=disk.failing_sync,
        tests=_tests(
            "store/test_writer.py::test_a_failed_commit_fails_all_who_shared_it_once",
            "store/test_writer.py::test_what_the_log_holds_is_written_anew_before_anything_is_promised",
        ),
    ),
    Row(
        "the disk is read-only, or becomes it",
        "a line and no start; refused by policy, an alarm",
        apart=disk.read_only,
        tests=_tests("store/test_file.py"),
    ),
    Row(
        "out of file descriptors; near out of memory",
        "accept pauses, live sessions live; new ones refused at 90 %",
        tests=_tests(
            "daemon/test_bounds.py::test_out_of_file_descriptors",
            "daemon/test_bounds.py::test_short_of_memory",
        ),
    ),
    Row(
        "the wall clock leaps",
        "timers are monotonic; what has a date goes by it",
        apart=clock.leaps,
        tests=_tests("store/test_writer.py::test_a_clock_that_jumps_does_not_end_the_wait"),
    ),
    Row(
        "an authority or certificate is replaced",
        "used from the next dial, or the next reload, on; nothing drops",
        tests=_tests("daemon/test_tls.py", "daemon/test_certificates.py"),
    ),
    Row(
        "old TLS, another authority, a wrong name",
        "TLS 1.2 or better, verified, both legs",
        tests=_tests("transport/test_tls.py", "transport/test_tls_server.py"),
    ),
    Row("log injection, terminal escapes", "escaped", cases.log_injection),
    Row("many model names", "label sets are bounded", cases.thousand_models),
    Row(
        "80 ms delay, 20 Mbit/s, stalls, one-byte segments",
        "every client passes",
        cases.bad_network,
    ),
    Row(
        "50 clean sessions meanwhile",
        "p99 of the added latency under 5 ms",
        missing="make soak prints it beside the same without attacks",
    ),
)
