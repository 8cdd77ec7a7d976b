"""Loading: what is understood, and the line for each mistake."""

import os
from datetime import date

import pytest

from rtpipe import ConfigError
from rtpipe.daemon import config_files
from rtpipe.daemon.config_load import build, check_doors, check_secrets, load

from .conftest import HOST


def line(config, text, **drop_ins):
    """The complaint about *text*, without the folder."""
    path = config(text, **drop_ins)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_defaults(config):
    loaded = load(config())
    assert loaded.stages == loaded.disabled == loaded.warnings == ()
    assert loaded.config.limits.max_message_bytes == 16 * 1024 * 1024
    listener = loaded.config.listen[0]
    assert (listener.name, listener.place) == ("127.0.0.1:8787", ("127.0.0.1", 8787))


def test_byte_order_mark_and_windows_lines(config):
    assert load(config(b"\xef\xbb\xbf" + HOST.replace("\n", "\r\n").encode())).config.chain == ()


def test_stages(config):
    text = HOST.replace("[]", '["one", "two", "three"]')
    text += '[plugins.one]\nuse = "other"\ntimeout_ms = 50\non_error = "drop"\nsize = 3\n'
    text += "[plugins.two]\nenabled = false\n[plugins.thre]\nx = 1\n[plugins.off]\nenabled = false\n"
    path = config(text)
    loaded = load(path)
    one, three = loaded.stages
    assert (one.name, one.plugin, one.timeout_ms, one.on_error) == ("one", "other", 50, "drop")
    assert one.options == {"size": 3}
    assert (three.plugin, three.options, three.timeout_ms, three.on_error) == ("three", {}, None, None)
    assert [stage.name for stage in loaded.disabled] == ["two"]
    what = "no stage of the chain has this name (did you mean three?): it does nothing"
    assert loaded.warnings == (f"{path}:20: plugins.thre: {what}",)


def test_drop_ins_merge_in_name_order(config):
    loaded = load(
        config(
            HOST + "[limits]\nmax_sessions = 5\nhold_bytes = 5000\n",
            b='chain = ["x"]\n[limits]\nmax_sessions = 7\n',
            a="[limits]\nmax_sessions = 6\n",
        )
    )
    assert (loaded.config.limits.max_sessions, loaded.config.limits.hold_bytes) == (7, 5000)
    assert [stage.name for stage in loaded.stages] == ["x"]


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:9", "127.8.8.8"])
def test_a_key_may_cross_this_machine_in_clear(config, host):
    loaded = load(config(HOST.replace("wss://api.openai.com", f"ws://{host}")))
    assert loaded.config.upstream[0].endpoint == f"ws://{host}/v1/realtime"


AGEING = HOST.replace('"a-model"', '"gpt-realtime"\nmodels = { old = "gpt-realtime-mini", "x" = "y" }')


def ageing(config, text, today):
    """The warnings on that day, without the file."""
    path = config(text)
    loaded = build(config_files.read_all(path), date.fromisoformat(today))
    return [warning.removeprefix(f"{path}:") for warning in loaded.warnings]


def test_models_that_end(config):
    assert ageing(config, AGEING, "2026-07-23") == []
    assert ageing(config, AGEING, "2026-11-22") == [
        "13: upstream[0].models.old: model gpt-realtime-mini ends on 2027-01-20, 59 days left; "
        "use gpt-realtime-2.1-mini instead",
        "12: upstream[0].default_model: model gpt-realtime ends on 2027-01-20, 59 days left; "
        "use gpt-realtime-2.1 instead",
    ]
    assert "1 day left" in ageing(config, AGEING, "2027-01-19")[0]
    assert "model gpt-realtime-mini ended on 2027-01-20; use" in ageing(config, AGEING, "2027-01-20")[0]
    regional = AGEING.replace("api.openai", "eu.api.openai")
    assert len(ageing(config, regional, "2027-01-01")) == 2


def test_models_that_end_elsewhere_on_another_day_or_never(config):
    assert ageing(config, AGEING.replace("api.openai.com", "api.example"), "2030-01-01") == []
    azure = AGEING.replace('"openai"\nurl', '"azure"\nurl')
    assert "ended on 2027-06-15" in ageing(config, azure, "2030-01-01")[0]
    aliased = AGEING.replace("{ old", '{ "gpt-realtime" = "gpt-realtime-2.1", old')
    assert len(ageing(config, aliased, "2030-01-01")) == 1  # the default is an alias, of one that lives


def test_equal_stages_are_equal_wherever_they_stand(config):
    before = load(config(HOST.replace("[]", '["x"]') + "[plugins.x]\na = 1\n")).stages[0]
    after = load(config("# moved\n" + HOST.replace("[]", '["y", "x"]') + "[plugins.x]\na = 1\n")).stages[1]
    other = load(config(HOST.replace("[]", '["x"]') + "[plugins.x]\na = 2\n")).stages[0]
    assert before == after
    assert before != other


MISTAKES = [
    ("chain", "chian", "1: chian: unknown option (did you mean chain?)"),
    ("url =", "urll =", "10: upstream[0].urll: unknown option (did you mean url?)"),
    ("open = true", 'open = "yes"', '5: listen[0].open: expected true or false, got "yes"'),
    ("open = true", "open = 1", "5: listen[0].open: expected true or false, got 1"),
    ("chain = []", "chain = {}", "1: chain: expected an array, got a table"),
    ("chain = []", "chain = [3]", "1: chain[0]: expected a string, got 3"),
    ("chain = []", 'chain = ["a",\n"a"]', "2: chain[1]: a is named twice"),
    ("chain = []", 'chain = ["../a"]', "1: chain[0]: a stage's name is made of"),
    ("chain = []", 'chain = ["client"]', "1: chain[0]: a stage's name is made of"),
    ("chain = []", 'state_dir = "x"', "1: state_dir: expected an absolute path"),
    ("chain = []", "plugins = { a = 3 }", "1: plugins.a: expected a table, got 3"),
    ('default_model = "a-model"', "", "7: upstream[0].default_model: missing (The model of a client"),
    ('"a-model"', '""', "12: upstream[0].default_model: expected a string of length >= 1"),
    (
        '"openai"\nurl',
        '"opnai"\nurl',
        '9: upstream[0].kind: expected azure or openai or sim, got "opnai" (did you mean',
    ),
    ('{ env = "TEST_API_KEY" }', '"sk-123"', "11: upstream[0].api_key: a secret is not written here but"),
    ("{ env", "{ enf", "11: upstream[0].api_key.enf: unknown option (did you mean env?)"),
    ("api_key", "#", "7: upstream[0].api_key: missing (kind openai needs one"),
    ("wss:", "ws:", "10: upstream[0].url: expected wss://host/… for kind openai (ws:// only to this machine"),
    ("wss:", "https:", "10: upstream[0].url: expected wss://host/… for kind openai"),
    (
        '"openai"\nurl',
        '"azure"\ntoken = { env = "T" }\nurl',
        "12: upstream[0].api_key: kind azure needs an api",
    ),
    ('"openai"\nurl', '"openai"\ntoken = { env = "T" }\nurl', "10: upstream[0].token: only kind azure has"),
    ('"openai"\nurl', '"azure"\nproject = "p"\nurl', "10: upstream[0].project: only kind openai has this"),
    ("api_key =", 'project = "p\\n"\napi_key =', "11: upstream[0].project: has characters that a header"),
    (
        "api_key =",
        'safety_identifier = false\nsafety_key = { env = "S" }\napi_key =',
        "12: upstream[0].safety_key: there is no safety_identifier",
    ),
    (
        "api_key =",
        'proxy = "https://proxy:1"\napi_key =',
        "11: upstream[0].proxy: expected http://host:port or socks5://host:port, or environment",
    ),
    ("api_key =", 'proxy = "http://u:p@proxy:1"\napi_key =', "11: upstream[0].proxy: has a user name or"),
    (
        "api_key =",
        'proxy_auth = { env = "P" }\napi_key =',
        "11: upstream[0].proxy_auth: belongs to a proxy that is written here",
    ),
    ("realtime", "realtime?model=x", "10: upstream[0].url: has a query"),
    ("api.", "u:p@api.", "10: upstream[0].url: has a user name or password"),
    ("api.openai.com", "[x", "10: upstream[0].url: is no URL"),
    ("127.0.0.1:8787", "unix:run/s", "4: listen[0].address: expected unix: and an absolute path"),
    ("127.0.0.1:8787", "unix:/run/../s", "4: listen[0].address: expected unix: and an absolute path"),
    ("127.0.0.1:8787", f"unix:/{'x' * 107}", "4: listen[0].address: the path of a Unix socket may have 107"),
    ("127.0.0.1:8787", 'unix:/s"\nmode="660x', "5: listen[0].mode: expected permissions as octal digits"),
    ("127.0.0.1:8787", 'unix:/s"\nmode="888', "5: listen[0].mode: expected permissions as octal digits"),
    (
        '"127.0.0.1:8787"',
        '"unix:/s"\ntls = { certificate = "c", key = "k" }',
        "5: listen[0].tls: a Unix socket stays on this machine",
    ),
    (
        '"127.0.0.1:8787"\nopen = true',
        '"unix:/s"\n[[listen]]\naddress = "unix:/s"',
        "6: listen[1].address: the same address as listen[0]",
    ),
    ("127.0.0.1:8787", ":8787", "4: listen[0].address: names no host"),
    ("127.0.0.1:8787", "::1:8787", "4: listen[0].address: write an IPv6 address in brackets"),
    ("127.0.0.1:8787", "localhost", "4: listen[0].address: expected host:port"),
    ("127.0.0.1:8787", "localhost:99999", "4: listen[0].address: expected host:port"),
    ("open", "tls = {}\nopen", "5: listen[0].tls.certificate: missing (PEM file of the certificate"),
    ("open", 'tls = "server.pem"\nopen', "5: listen[0].tls: expected a table"),
    (
        'kind = "openai"\nurl = "wss:',
        'kind = "sim"\nca = "ca.pem"\nurl = "ws:',
        "10: upstream[0].ca: only wss:// has certificates to verify",
    ),
    ("open", 'origins = ["*", "https://a/"]\nopen', "5: listen[0].origins[1]: expected scheme://host"),
    (
        "open",
        "[[listen]]\naddress='127.0.0.1:8787'\nopen",
        "6: listen[1].address: the same address as listen[0]",
    ),
    (
        "[[upstream]]",
        "[limits]\nmax_sessions = 0\n[[upstream]]",
        "8: limits.max_sessions: expected an integer >= 1",
    ),
    ("[[upstream]]", "[limits]\nhold_age_s = nan\n[[upstream]]", "8: limits.hold_age_s: expected a number"),
    (
        '"a-model"',
        '"m"\nmodels = { a = "b",  "c.d" = 3 }',
        '13: upstream[0].models."c.d": expected a string, got 3',
    ),
    (
        '"a-model"',
        '"m"\nmodels = { "\\u001b[2J" = 3 }',
        '13: upstream[0].models."\\x1b[2J": expected a string',
    ),
    ("chain", "= 3", "1: not valid TOML: Invalid statement (column 1)"),
    ('"a-model"', "'''", "12: not valid TOML: Expected \"'''\" (at the end of the file)"),
    ('"a-model"', "9" * 5000, "1: not valid TOML: Exceeds the limit"),
    ("[]", "[" * 5000, "1: not valid TOML: nested too deeply"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_a_mistake_is_one_line(config, old, new, expected):
    assert old in HOST
    assert line(config, HOST.replace(old, new, 1)).startswith(f"rtpipe.toml:{expected}")


def test_an_empty_file_names_what_is_missing(config):
    assert line(config, "").startswith("rtpipe.toml:1: listen: missing (")


def test_a_literal_secret_is_not_repeated(config):
    for text in ("sk-topsecret", "sk-topsecret" * 20):
        assert "topsecret" not in line(config, HOST.replace('{ env = "TEST_API_KEY" }', f'"{text}"'))


def test_a_mistake_in_a_drop_in_is_placed_there(config):
    complaint = line(config, HOST + "[limits]\nmax_sessions = 5\n", x="\n[limits]\nmax_sessions = 0\n")
    assert complaint.startswith("conf.d/x.toml:3: limits.max_sessions: expected")
    complaint = line(config, HOST + "[log]\nlevl = 5\n", x="[limits]\nmax_sessions = 3\n")
    assert complaint.startswith("rtpipe.toml:14: log.levl: unknown option (did you mean level?)")
    complaint = line(config, HOST, x='[[listen]]\nname = "x"\n')
    assert complaint.startswith("conf.d/x.toml:1: listen[0].address: missing")


def test_not_utf8(config):
    assert line(config, HOST.encode() + b"# \xff").startswith("rtpipe.toml:13: not UTF-8 (byte 0xff)")


def test_files_that_cannot_be_read(tmp_path):
    for path, why in [
        (tmp_path / "none.toml", "no such file"),
        (tmp_path, "is a directory, not a file"),
        (tmp_path / "a\0b", "is not a file name"),
        (tmp_path / ("x" * 300), "cannot be read (File name too long)"),
    ]:
        with pytest.raises(ConfigError, match=r"\A[^\x00-\x1f]*\Z") as caught:
            load(path)
        assert str(caught.value).endswith(why)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_forbidden_file(config):
    path = config()
    path.chmod(0)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\)"):
        load(path)


def test_the_file_that_is_read(config, monkeypatch):
    path = config()
    monkeypatch.setenv("RTPIPE_CONFIG", str(path))
    assert load(None).path == path
    monkeypatch.delenv("RTPIPE_CONFIG")
    monkeypatch.setattr("rtpipe.daemon.config_files.SYSTEM_FILE", path.parent / "none")
    with pytest.raises(ConfigError, match="no configuration: give --config FILE"):
        load(None)


def test_state_path(config, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
    assert str(load(config()).config.state_path) == "/var/lib/a"
    assert str(load(config('state_dir = "/x"\n' + HOST)).config.state_path) == "/x"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(load(config()).config.state_path) == "/home/someone/.local/state/rtpipe"


def test_secrets(config, monkeypatch, tmp_path):
    loaded = load(config())
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"toml:11: upstream\[0\].api_key: no secret found in env"):
        check_secrets(loaded)
    monkeypatch.setenv("TEST_API_KEY", "sk-x")
    check_secrets(loaded)
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"upstream\[0\].api_key: "):
        check_secrets(load(config(HOST.replace('env = "TEST_API_KEY"', f'file = "{tmp_path}/key"'))))


def test_plugin_options_and_their_mistakes(config, example, monkeypatch):
    def stage(options):
        return load(config(HOST.replace("[]", '["example"]') + f"[plugins.example]\n{options}\n")).stages[0]

    plugin = stage("").load_plugin()
    assert stage("max_edge_px = 3").plugin_config(plugin.config_type).max_edge_px == 3
    for options, complaint in [
        ("max_edge = 3", "14: plugins.example.max_edge: unknown option (did you mean max_edge_px?)"),
        ("timeout = 3", "14: plugins.example.timeout: unknown option (did you mean timeout_ms?)"),
        ('max_edge_px = "big"', '14: plugins.example.max_edge_px: expected an integer, got "big"'),
        ('named = { a = 1 }\nnamed.b = "x"', "15: not valid TOML"),
        (
            '[plugins.example.named]\na = 1\nb = "x"',
            '16: plugins.example.named.b: expected an integer, got "x"',
        ),
        ('token = "s3cret"', "14: plugins.example.token: a secret is not written here but referred to"),
    ]:
        with pytest.raises(ConfigError) as caught:
            stage(options).plugin_config(plugin.config_type)
        assert f"rtpipe.toml:{complaint}" in str(caught.value)
    with pytest.raises(
        ConfigError, match=r":14: plugins.example.on_error: plugin example allows only close or"
    ):
        stage('on_error = "pass"').load_plugin()
    with pytest.raises(
        ConfigError, match=r":14: plugins.example.timeout_ms: expected an integer >= 1, got 0"
    ):
        stage("timeout_ms = 0")
    missing = stage('token = { env = "TEST_NOT_SET" }')
    monkeypatch.setenv("TEST_API_KEY", "sk-x")
    loaded = load(
        config(HOST.replace("[]", '["example"]') + '[plugins.example]\ntoken.env = "TEST_NOT_SET"\n')
    )
    with pytest.raises(ConfigError, match=r":14: plugins.example.token: no secret found"):
        check_secrets(loaded, {"example": missing.plugin_config(plugin.config_type)})


def test_a_config_that_judges_for_itself(config, distribution):
    distribution(
        "picky",
        """
        import msgspec
        from rtpipe import ConfigError, Plugin
        class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
            n: int
            def __post_init__(self):
                if self.n == 1: raise ValueError("one is\\nnot enough")
                if self.n == 2: raise ConfigError("two neither")
                if self.n == 3: raise KeyError("oh")
        class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
            parts: tuple[Part, ...] = ()
        class Example(Plugin[Config, None]):
            pass
        """,
    )
    for n, complaint in [
        (1, ":14: plugins.picky.parts[0]: one is\\nnot enough"),
        (2, ":13: plugins.picky: two neither"),
        (3, ":13: plugins.picky: Config cannot be made: KeyError: 'oh'"),
    ]:
        text = HOST.replace("[]", '["picky"]') + f"[plugins.picky]\n[[plugins.picky.parts]]\nn = {n}\n"
        stage = load(config(text)).stages[0]
        with pytest.raises(ConfigError) as caught:
            stage.plugin_config(stage.load_plugin().config_type)
        assert str(caught.value).endswith(complaint)


def test_listeners_need_somebody_who_authenticates(config, example, distribution):
    distribution(
        "guard", "from rtpipe import Plugin\nclass Example(Plugin):\n  def authenticate(self, request): ..."
    )
    closed = HOST.replace("open = true", "").replace("[]", '["example"]')
    loaded = load(config(closed))
    plugins = {stage.name: stage.load_plugin() for stage in loaded.stages}
    with pytest.raises(ConfigError, match=r":3: listen\[0\]: no stage of the chain authenticates"):
        check_doors(loaded, plugins)
    check_doors(load(config()), {})
    loaded = load(config(closed.replace('"example"', '"guard"')))
    check_doors(loaded, {stage.name: stage.load_plugin() for stage in loaded.stages})
