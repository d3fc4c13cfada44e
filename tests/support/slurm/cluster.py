"""A Slurm cluster of two nodes on this host, for tests: its own daemons, ports and directories."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.library import eventually

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
_CONF = """\
ClusterName=jw
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
DefMemPerCPU=100
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MessageTimeout=5
SchedulerParameters=sched_min_interval=1000,sched_interval=1,bf_interval=1
{nodes}
PartitionName=main Nodes={names} Default=YES State=UP
"""


def missing() -> str:
    """What keeps this host from having a cluster; empty where nothing does."""
    if os.geteuid() != 0:
        return "a Slurm cluster takes root"
    lacking = [name for name in PROGRAMS if _find(name) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)}): apt-get install slurm-wlm munge"
    return ""


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as undo:
        sockets = [undo.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class Cluster:
    """The daemons by name: munged, slurmctld, and a slurmd for each of NODES."""

    directory: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """What SLURM_CONF is to be for who uses it."""
        return self.directory / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of who uses it."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def start(self, name: str) -> None:
        """Start a daemon, or start it again."""
        directory = self.directory
        commands = {
            "munged": [
                "munged", "--foreground", "--force",
                f"--socket={directory}/munge.socket", f"--key-file={directory}/munge.key",
                f"--pid-file={directory}/munged.pid", f"--seed-file={directory}/munged.seed",
                f"--log-file={directory}/munged.log",
            ],
            "slurmctld": ["slurmctld", "-D", "-f", str(self.conf)],
        }  # fmt: skip
        command = commands.get(name) or ["slurmd", "-D", "-N", name, "-f", str(self.conf)]
        self.daemons[name] = subprocess.Popen(
            [_find(command[0]) or command[0], *command[1:]],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self, name: str) -> None:
        """SIGKILL a daemon."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def say(self, *command: str) -> str:
        """What one of Slurm's commands prints; empty where it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def ready(self) -> bool:
        """Whether both nodes take jobs."""
        states = self.say("sinfo", "-h", "-N", "-o", "%T").split()
        return len(states) == len(NODES) and set(states) <= {"idle", "mixed", "allocated"}

    def revive(self) -> None:
        """Start those of the daemons that were killed, and wait until they work."""

        def revived() -> bool:
            for name in ("slurmctld", *NODES):
                # Where its port was not free yet, it has ended by itself.
                if name not in self.daemons or self.daemons[name].poll() is not None:
                    self.start(name)
            # A controller that has forgotten a job takes what its node has of it for a fault.
            self.say("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME")
            return self.ready()

        eventually("both nodes take jobs", revived)

    def wait_until_saved(self) -> None:
        """Wait until the controller has put on its disk what it knows of jobs now."""
        since = time.time()
        path = self.directory / "state" / "job_state"

        def saved() -> bool:
            if path.exists() and path.stat().st_mtime > since:
                return True
            # A change of any job has it save them all, within some seconds.
            for number in self.say("squeue", "-h", "-o", "%i").split()[:1]:
                self.say("scontrol", "update", f"JobId={number}", "Priority=10")
            return False

        eventually("Slurm has saved its state", saved)

    def end_jobs(self) -> None:
        """Cancel whatever is left, and wait until it is gone."""
        self.say("scancel", "--signal=KILL", "--full", "--user=root")
        self.say("scancel", "--user=root")
        eventually("no job is left", lambda: self.say("squeue", "-h") == "")

    def close(self) -> None:
        """End the daemons, and what they left."""
        for name in list(self.daemons):
            self.kill(name)
        for pid in _processes_naming(str(self.directory)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes_naming(text: str) -> list[int]:
    """Such as slurmstepd, which outlives its slurmd: by their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"SLURM_CONF={text}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that takes jobs, and is gone again afterwards."""
    # Not pytest's own directory: users of jobs must reach the socket of munged.
    directory = Path(tempfile.mkdtemp(prefix="jw-slurm-"))
    directory.chmod(0o755)
    cluster = Cluster(directory)
    try:
        port, node_port, *ports = free_ports(2 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs=16 "
            "RealMemory=8000"
            for name, own in zip(NODES, ports, strict=True)
        )
        (directory / "state").mkdir()
        cluster.conf.write_text(
            _CONF.format(
                host=host,
                directory=directory,
                port=port,
                node_port=node_port,
                nodes=nodes,
                names=",".join(NODES),
            )
        )
        key = directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        cluster.start("munged")
        eventually("munged listens", (directory / "munge.socket").exists)
        cluster.start("slurmctld")
        for name in NODES:
            cluster.start(name)
        eventually("both nodes take jobs", cluster.ready)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(directory, ignore_errors=True)
