import pytest

from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, config


@pytest.fixture(autouse=True)
def upstream_key(monkeypatch):
    """Daemons in the test's own process find the gateway's key where those in another do."""
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)


@pytest.fixture
def text(tmp_path):
    """Make a configuration whose state is in *tmp_path*."""

    def make(*args, **kwargs):
        return config(tmp_path / "state", *args, **kwargs)

    return make


@pytest.fixture
def file(tmp_path, text):
    """Write a configuration and return its path."""

    def write(*args, **kwargs):
        path = tmp_path / "rtpipe.toml"
        path.write_text(text(*args, **kwargs))
        return path

    return write
