"""What holds for all tests."""

import signal

import pytest

from tests.marked import marked_in

# A shell has what it starts in the background ignore Ctrl-C, and so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test fails in whose log, stdout or stderr a secret stands. At its end all of them are there."""
    report = yield
    shown = marked_in(report.caplog + report.capstdout + report.capstderr)
    if call.when == "teardown" and report.passed and shown:
        report.outcome = "failed"
        report.longrepr = f"secrets were logged or printed: {sorted(set(shown))}"
    return report
