"""Programs that take the whole terminal, by `run -it` on a real one."""

import shutil
import sys

import pytest

from tests.support.server import Server
from tests.support.session.terminal import on_terminal

CTRL_C, CTRL_D, CTRL_Z, ESCAPE = "\x03", "\x04", "\x1a", "\x1b"


def needed(program: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


def test_bash_with_job_control_and_sizes(server: Server) -> None:
    with on_terminal(server, "alice", "run", "-it", "-e", "PS1=ready$ ", "bash", "--norc") as bash:
        bash.until(r"^ready\$")
        bash.type("stty size\r")
        bash.until("^24 80")
        bash.type("sleep 100\r")
        bash.until(r"sleep 100")
        bash.type(CTRL_Z)
        bash.until("Stopped")
        bash.type("jobs; fg\r")
        bash.until(r"\[1\]\+")
        bash.type(CTRL_C)
        bash.type("echo code $?\r")
        bash.until("^code 130")
        bash.resize(30, 100)
        bash.type("stty size\r")
        bash.until("^30 100")
        bash.type("tty; exit 7\r")
        assert bash.end() == 7
        assert b"/dev/pts/" in bash.seen


def test_an_interrupt_is_the_programs(server: Server) -> None:
    """Ctrl-C stopped the job."""
    script = "trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done"
    with on_terminal(server, "alice", "run", "-it", "sh", "-c", script) as shell:
        shell.until("^ready")
        shell.type(CTRL_C)
        shell.until("caught")
        shell.type("\x1c")
        assert shell.end() == 131


def test_python(server: Server) -> None:
    with on_terminal(server, "alice", "run", "-it", sys.executable, "-q") as python:
        python.until("^>>>")
        python.type("import os; os.get_terminal_size()\r")
        python.until("columns=80, lines=24")
        python.type("input('name? ')\r")
        python.until(r"^name\?")
        python.type("Zo\u00eb\r")
        python.until("'Zo\u00eb'")
        python.type(CTRL_D)
        assert python.end() == 0


def test_vim(server: Server) -> None:
    vim = needed("vim.tiny" if shutil.which("vim") is None else "vim")
    text = server.directory / "text"
    with on_terminal(server, "alice", "run", "-it", vim, "-u", "NONE", str(text)) as editor:
        editor.until("^~")
        editor.type("ihello from vim" + ESCAPE)
        editor.until("^hello from vim")
        editor.type(":wq\r")
        assert editor.end() == 0
    assert text.read_text() == "hello from vim\n"


def test_less(server: Server) -> None:
    needed("less")
    lines = server.directory / "lines"
    lines.write_text("".join(f"line {number}\n" for number in range(1, 101)))
    with on_terminal(server, "alice", "run", "-it", "less", str(lines)) as pager:
        pager.until("^line 23")
        pager.type("G")
        pager.until("^line 100")
        pager.type("q")
        assert pager.end() == 0


def test_top(server: Server) -> None:
    needed("top")
    with on_terminal(server, "alice", "run", "-it", "top") as top:
        top.until("PID USER")
        top.resize(40, 120)
        top.until("COMMAND")
        top.type("q")
        assert top.end() == 0


def test_bytes_of_all_kinds_go_both_ways(server: Server) -> None:
    script = "stty raw -echo; echo ready; head -c 256 | od -An -v -tu1 -w16"
    with on_terminal(server, "alice", "run", "-it", "sh", "-c", script, rows=40) as shell:
        shell.until("ready")
        shell.type(bytes(range(256)))
        assert shell.end() == 0
    numbers = shell.seen.split(b"ready", 1)[1].split()
    assert [int(number) for number in numbers] == list(range(256))
