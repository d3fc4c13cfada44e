"""Where the command finds its settings, and what it says of bad ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.config_file import read_config
from jobworker.cli.errors import SettingsError
from jobworker.cli.settings import Setting, SettingsFile, config_path, resolve

FILE = Path("/home/alice/.config/jobworker/config.yaml")
NAMES = ("server", "ca", "cert", "key")
IN_FILE = SettingsFile(FILE, {name: Setting(f"file-{name}", f"{FILE}:1") for name in NAMES})


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    settings = resolve(
        {"ca": "flag-ca"}, {"JOBWORKER_CA": "env-ca", "JOBWORKER_CERT": "env-cert"}, IN_FILE
    )
    assert settings.ca == Path("flag-ca")
    assert settings.cert == Path("env-cert")
    assert settings.key == Path("file-key")
    assert settings.server == "file-server:50051"


def test_a_missing_setting_says_the_three_ways_to_give_it() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({}, {"JOBWORKER_SERVER": "here"}, SettingsFile(FILE))
    assert str(caught.value) == (
        "no CA certificate is set: give --ca, set JOBWORKER_CA, "
        "or write `ca: ...` in /home/alice/.config/jobworker/config.yaml"
    )


@pytest.mark.parametrize(
    ("text", "address", "host", "port"),
    [
        ("example.org", "example.org:50051", "example.org", 50051),
        ("example.org:1", "example.org:1", "example.org", 1),
        ("10.0.0.1:65535", "10.0.0.1:65535", "10.0.0.1", 65535),
        ("::1", "[::1]:50051", "::1", 50051),
        ("[::1]", "[::1]:50051", "::1", 50051),
        ("[fe80::2]:9", "[fe80::2]:9", "fe80::2", 9),
    ],
)
def test_a_server_is_a_host_with_or_without_a_port(
    text: str, address: str, host: str, port: int
) -> None:
    settings = resolve({"server": text}, {}, IN_FILE)
    assert settings.server == address
    assert settings.address == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        ":50051",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "[]",
        "unix:/run/x",
        "a b",
        "x@y",
    ],
)
def test_what_is_no_server_is_named_with_its_source(text: str) -> None:
    with pytest.raises(SettingsError, match="JOBWORKER_SERVER") as caught:
        resolve({}, {"JOBWORKER_SERVER": text}, IN_FILE)
    assert repr(text) in str(caught.value)


def test_the_file_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert config_path({}) == FILE
    assert config_path({"XDG_CONFIG_HOME": "/etc/me"}) == Path("/etc/me/jobworker/config.yaml")
    assert config_path({"XDG_CONFIG_HOME": "relative"}) == FILE


def test_files_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: here:1\nca: ca.crt\ncert: /abs/a.crt\nkey: ~/a.key\n")
    found = read_config(path).for_all
    assert found["server"] == Setting("here:1", f"{path}:1")
    assert found["ca"] == Setting(str(tmp_path / "ca.crt"), f"{path}:2")
    assert found["cert"].text == "/abs/a.crt"
    assert found["key"].text == str(Path("~/a.key").expanduser())


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("server: a\nserverr: b\n", 2, "unknown key 'serverr'; did you mean server?"),
        ("colour: red\n", 1, "unknown key 'colour'; the keys are server, ca, cert, key, contexts"),
        ("ca: a\n\nca: b\n", 3, "ca is set twice"),
        ("cert:\n  - a\n", 2, "cert must be one text"),
        ("key:\n", 1, "key must be one text"),
        ("- server\n", 1, "must be `key: value` lines"),
        ("server: 'a\n", 2, "not YAML"),
        ("server: a\n  ca: b\n", 2, "not YAML"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, line: int, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*No such file"):
        read_config(tmp_path / "config.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=str(binary)):
        read_config(binary)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# nothing yet\n")
    assert read_config(path) == SettingsFile(path)


@given(st.text())
def test_any_server_text_is_an_address_or_a_settings_error(text: str) -> None:
    try:
        settings = resolve({"server": text}, {}, IN_FILE)
    except SettingsError:
        return
    host, port = settings.address
    assert host
    assert 0 < port < 65536
