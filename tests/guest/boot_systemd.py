"""The first process of a guest that systemd runs: makes a host of it, and becomes systemd.

    boot_systemd.py DIRECTORY WORD...

As boot.py does it; but nothing of the host's can be written, /etc, /var, /opt and /usr/local are
the guest's own, and Python runs as a unit beside those that it installs.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from boot import MS_BIND, REPOSITORY, mount, mount_all, raise_loopback

SYSTEMD = "/lib/systemd/systemd"
UNITS = Path("/etc/systemd/system")
MS_RDONLY, MS_REMOUNT = 1, 32
# Python is the last to run: then the guest is off.
UNIT = """\
[Unit]
DefaultDependencies=no
Requires=basic.target
After=basic.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=oneshot
WorkingDirectory={directory}
Environment=PATH={path} HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
ExecStart={command}
StandardOutput=file:/dev/console
StandardError=file:/dev/console
"""


def own(directory: str, *, copied: bool = False) -> None:
    """Put a directory of the guest's own in the place of one of the host's, empty or a copy."""
    copy = Path("/run/own", directory.strip("/"))
    if copied:
        shutil.copytree(directory, copy, symlinks=True)
    else:
        copy.mkdir(parents=True)
    mount("", str(copy), directory, flags=MS_BIND)


def write_units(words: list[str]) -> None:
    """Leave of the host's own units none, and add the one that runs Python."""
    shutil.rmtree(UNITS)
    UNITS.mkdir()
    command = shlex.join([sys.executable, *words])
    text = UNIT.format(directory=REPOSITORY, path=os.environ["PATH"], command=command)
    (UNITS / "guest.service").write_text(text)
    # A login would start services for the user first, which takes this kernel seconds.
    for file in Path("/etc/pam.d").iterdir():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "pam_systemd" not in line))


def main() -> None:
    """Do it all; whatever goes wrong is to be read in the kernel's output."""
    directory, *words = sys.argv[1:]
    print("guest: booted", flush=True)
    mount_all(Path(directory))
    raise_loopback()
    own("/etc", copied=True)
    own("/opt")
    own("/usr/local/bin")
    own("/var")
    for name in ("lib", "log", "cache", "spool"):
        Path("/var", name).mkdir()
    Path("/var/tmp").mkdir()
    Path("/var/tmp").chmod(0o1777)
    write_units(words)
    mount("", "", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.execv(SYSTEMD, [SYSTEMD, "--unit=guest.service", "--show-status=no"])


if __name__ == "__main__":
    main()
