"""Contexts: several servers in one settings file, chosen by each shell, and edited."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.config_file import read_config
from jobworker.cli.errors import SettingsError
from jobworker.cli.settings import SettingsFile, resolve
from jobworker.cli.setup.settings_edit import CannotEdit, with_value, without
from tests.support.server import DEADLINE_SECONDS, JOBWORKER, Server

TEXT = """\
# Of all.
ca: ca.crt   # the organisation's
server: top
contexts:
  lab:       # downstairs
    server: lab:1
    cert: lab.crt

  # The real one.
  prod: {server: prod:1, cert: prod.crt, ca: other.crt}
key: my.key
"""


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    """A settings file of two contexts."""
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return read_config(path)


def jobworker(
    path: Path, *words: str, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command with a settings file."""
    return subprocess.run(
        [JOBWORKER, *words],
        env={"HOME": "/nonexistent", "JOBWORKER_CONFIG": str(path), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def changed(path: Path, *words: str) -> str:
    """Run the command, which must succeed; the settings file after it."""
    done = jobworker(path, *words)
    assert done.returncode == 0, done.stderr
    return path.read_text()


# -- which one -----------------------------------------------------------------------------


def test_a_context_wins_over_what_is_for_all(file: SettingsFile) -> None:
    folder = file.path.parent
    found = resolve({}, {"JOBWORKER_CONTEXT": "prod"}, file)
    assert found.server == "prod:1"
    assert (found.ca, found.cert) == (folder / "other.crt", folder / "prod.crt")
    assert found.key == folder / "my.key"


def test_the_option_wins_over_the_variable_and_may_be_none(file: SettingsFile) -> None:
    environment = {"JOBWORKER_CONTEXT": "prod", "JOBWORKER_CERT": "mine.crt"}
    assert resolve({"context": "lab"}, environment, file).server == "lab:1"
    assert resolve({"context": ""}, environment, file).server == "top:50051"


def test_a_context_named_by_an_option_wins_over_other_variables(file: SettingsFile) -> None:
    """Who says --context prod means prod, whatever a shell has set a while ago."""
    environment = {"JOBWORKER_SERVER": "elsewhere", "JOBWORKER_CONTEXT": "lab"}
    assert resolve({}, environment, file).server == "elsewhere:50051"
    assert resolve({"context": "prod"}, environment, file).server == "prod:1"
    assert resolve({"context": "prod", "server": "x"}, environment, file).server == "x:50051"


def test_a_context_that_is_not_there_is_named(file: SettingsFile) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({}, {"JOBWORKER_CONTEXT": "prd"}, file)
    assert str(caught.value) == (
        f"there is no context 'prd' (JOBWORKER_CONTEXT) in {file.path}; did you mean prod?"
    )
    with pytest.raises(SettingsError, match="those are lab, prod"):
        resolve({"context": "zzz"}, {}, file)


def test_where_nothing_is_for_all_contexts_are_offered(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("contexts: {lab: {server: a}, prod: {server: b}}\n")
    with pytest.raises(SettingsError, match=r"choose a context \(--context lab\|prod\)"):
        resolve({}, {}, read_config(path))
    with pytest.raises(SettingsError, match="no CA certificate of the context lab is set"):
        resolve({"context": "lab"}, {}, read_config(path))


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("contexts:\n  a b: {server: x}\n", 2, "'a b': a context's name has letters"),
        ("contexts:\n  a: {server: x}\n  a: {}\n", 3, "the context a is there twice"),
        ("contexts:\n  a:\n    sever: x\n", 3, "unknown key 'sever'; did you mean server?"),
        ("contexts:\n  a:\n    contexts: {}\n", 3, "unknown key 'contexts'"),
        ("contexts:\n  a:\n    ca: x\n    ca: x\n", 4, "ca is set twice"),
        ("contexts:\n  a: x\n", 2, "the context a must be `key: value` lines"),
        ("contexts: x\n", 1, "contexts must be names"),
        ("server: x\ncontext: x\n", 2, "unknown key 'context'; did you mean contexts?"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, line: int, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_two_shells_are_at_two_servers_and_whoami_says_so(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    lines = [f"ca: {server.authority.certificate}", "contexts:"]
    for name in ("alice", "bob"):
        own = server.users[name]
        lines.append(
            f"  at-{name}: {{server: '{server.address}', cert: {own.certificate}, key: {own.key}}}"
        )
    path.write_text("\n".join(lines))
    for name in ("alice", "bob"):
        done = jobworker(path, "whoami", environment={"JOBWORKER_CONTEXT": f"at-{name}"})
        assert done.stdout.startswith(f"User:         {name}\n"), done.stderr
        assert f"Server:       {server.address}\n" in done.stdout
        assert f"Context:      at-{name} (JOBWORKER_CONTEXT)\n" in done.stdout
    done = jobworker(path, "whoami", "--context", "at-bob", "-o", "json")
    assert '"context": "at-bob"' in done.stdout


def test_shells_complete_contexts(file: SettingsFile) -> None:
    for words in ("jobworker --context ", "jobworker list --context ", "jobworker config remove "):
        done = jobworker(
            file.path,
            environment={
                "_JOBWORKER_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split())),
            },
        )
        assert done.stdout.split() == ["plain,lab", "plain,prod"], done.stderr


# -- editing -------------------------------------------------------------------------------


def test_an_edit_leaves_all_else_alone(file: SettingsFile) -> None:
    path = file.path
    folder = path.parent
    assert changed(path, "config", "set", "server", "new:2") == TEXT.replace("top", "'new:2'")
    path.write_text(TEXT)
    lab = changed(path, "config", "set", "--context", "lab", "cert", f"{folder}/pki/l.crt")
    assert lab == TEXT.replace("lab.crt", "pki/l.crt")
    path.write_text(TEXT)
    more = changed(path, "config", "set", "--context", "lab", "key", "/abs/l.key")
    assert more == TEXT.replace("lab.crt\n", "lab.crt\n    key: /abs/l.key\n")
    path.write_text(TEXT)
    flow = changed(path, "config", "set", "--context", "prod", "key", "/abs/p.key")
    assert flow == TEXT.replace("other.crt}", "other.crt, key: /abs/p.key}")


def test_contexts_are_added_and_removed(file: SettingsFile) -> None:
    path = file.path
    added = changed(path, "config", "add", "home", "--server", "::1", "--cert", "/h.crt")
    end = "ca: other.crt}\n"
    assert added == TEXT.replace(
        end, f"{end}  home:\n    server: '[::1]:50051'\n    cert: /h.crt\n"
    )
    assert read_config(path).contexts["home"]["server"].text == "[::1]:50051"
    assert changed(path, "config", "remove", "home") == TEXT
    without_lab = changed(path, "config", "remove", "lab")
    assert list(read_config(path).contexts) == ["prod"]
    assert "# The real one." in without_lab
    assert "contexts" not in changed(path, "config", "remove", "prod")
    assert read_config(path).for_all["key"].text == str(path.parent / "my.key")


def test_the_first_context_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    done = jobworker(path, "config", "add", "lab", "--server", "lab")
    assert done.stdout == f"added the context lab to {path}\n", done.stderr
    assert path.read_text() == "contexts:\n  lab:\n    server: lab:50051\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["config.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "lab", "--server", "x"), "there is a context lab in"),
        (("add", "a b", "--server", "x"), "'a b': a context's name has"),
        (("add", "new"), "say at least what its --server is"),
        (("add", "new", "--server", "a b"), "the server 'a b' (as given) is not HOST:PORT"),
        (("set", "ca", ""), "'' is no ca"),
        (("set", "colour", "red"), "'colour' is not one of"),
        (("set", "--context", "labb", "ca", "x"), "did you mean lab?"),
        (("remove", "prodd"), "did you mean prod?"),
    ],
)
def test_a_bad_edit_changes_nothing(file: SettingsFile, words: tuple[str, ...], said: str) -> None:
    done = jobworker(file.path, "config", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert file.path.read_text() == TEXT


def test_what_is_not_read_is_not_edited(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: a\nserverr: b\n")
    done = jobworker(path, "config", "set", "ca", "x")
    assert done.returncode == 2
    assert done.stderr.startswith(f"jobworker: {path}:2: unknown key")
    path.write_text("contexts: {a: {server: x}, b: {server: y}}\n")
    done = jobworker(path, "config", "remove", "a")
    assert done.returncode == 1
    assert f"{path}:1: written in a way" in done.stderr
    assert path.read_text() == "contexts: {a: {server: x}, b: {server: y}}\n"


def test_a_link_to_the_file_stays_one(file: SettingsFile, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file.path)
    assert "new:1" in changed(link, "config", "set", "server", "new:1")
    assert link.is_symlink()


_texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
_names = st.sampled_from(["server", "ca", "cert", "key"])
_settings = st.dictionaries(_names, _texts, min_size=1)
_files = st.dictionaries(_names, _texts) | st.builds(
    lambda own, contexts: own | {"contexts": contexts},
    st.dictionaries(_names, _texts),
    st.dictionaries(st.sampled_from("abc"), _settings, min_size=1),
)


@given(_files, st.booleans() | st.none(), _names, _texts, st.sampled_from("abc"))
def test_an_edit_is_right_or_refused(
    content: dict[str, Any], flow: bool | None, name: str, value: str, context: str
) -> None:
    text = yaml.safe_dump(content, default_flow_style=flow, allow_unicode=True)
    for keys in ((name,), ("contexts", context, name)):
        wanted = yaml.safe_load(text)
        inner = wanted
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
        assert yaml.safe_load(with_value(text, keys, value)) == wanted
    for other in content.get("contexts", {}):
        try:
            left = yaml.safe_load(without(text, ("contexts", other))) or {}
        except CannotEdit:
            assert flow is not False
        else:
            assert other not in left.get("contexts", {})
