"""The demo on a cluster: munge, slurmctld, two nodes and a server, all on this host.

Run by `make demo-cluster`, as root. Every command that is shown is run, and what it prints
is checked; nothing of it is left.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

# Beside this folder, not in it: what tests bring up is what is shown here.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.library import eventually
from tests.support.server import Server, configure, own_address, serving
from tests.support.slurm.cluster import NODES, Cluster, missing, running_cluster

POLICY = """\
rules:
  - allow: "*"
    to: cn:*
    jobs: "{ou}/{cn}"
"""
SETTINGS = """\
jobs:
  users: {jobs_run_as_root: true}    # for the demo alone
  engine: {kind: slurm, shared_dir: SHARED}
"""
WHERE = 'echo "this is $SLURMD_NODENAME"; sleep 3'
FAILING = "echo to stdout; echo to stderr >&2; exit 3"


def say(text: str) -> None:
    """A line of the story."""
    print(f"\n# {text}", flush=True)


def show(server: Server, *words: str, code: int = 0, has: str = "") -> str:
    """Run a command as alice and show it; what it prints must have the text."""
    print(f"$ jobworker {shlex.join(words)}")
    done = server.run("alice", *words)
    text = done.stdout.decode() + done.stderr.decode()
    print(text, end="", flush=True)
    if done.returncode != code or has not in text:
        sys.exit(f"that should have ended with {code} and shown {has!r}, not {done.returncode}")
    return done.stdout.decode().strip()


def story(server: Server, cluster: Cluster) -> None:
    """What alice does."""
    say("Output, stderr apart, and the exit code are those of the program, wherever it runs.")
    show(server, "run", "--", "sh", "-c", FAILING, code=3, has="to stderr")
    say("Two jobs of 16 processors each take both nodes; a third waits, and says for what.")
    command = ("--cpus", "16", "--", "sh", "-c", WHERE)
    jobs = [show(server, "start", *command) for _ in NODES]
    third = show(server, "start", *command)
    eventually("why it waits", lambda: "Resources" in server.ask("alice", "status", third))
    show(server, "status", third, has="waits in Slurm")
    show(server, "wait", *jobs, third)
    told = [show(server, "logs", job, has="this is n") for job in jobs]
    if set(told) != {f"this is {name}" for name in NODES}:
        sys.exit(f"these were to be both nodes: {told}")
    say(
        "Slurm's controller and its nodes' daemons die under a job: it goes on, and can be stopped."
    )
    job = show(server, "start", "--", "sh", "-c", "echo up; exec sleep 1000")
    eventually("it is up", lambda: server.ask("alice", "logs", job) == "up")
    cluster.wait_until_saved()
    for name in ("slurmctld", *NODES):
        cluster.kill(name)
    show(server, "status", job, has="running")
    show(server, "stop", job)
    show(server, "status", job, has="stopped")
    cluster.revive()
    say("What a cluster cannot do is refused.")
    show(server, "run", "-i", "--", "cat", code=125, has="cannot give a job input")
    show(server, "list")


def main() -> None:
    """Bring it all up, tell the story, and clean up."""
    if why := missing():
        sys.exit(f"demo-cluster: {why}")
    with tempfile.TemporaryDirectory(prefix="jw-demo-") as name, running_cluster() as cluster:
        directory = Path(name)
        os.environ["SLURM_CONF"] = str(cluster.conf)
        host, settings = own_address(), SETTINGS.replace("SHARED", str(directory / "shared"))
        authority = configure(directory, host, POLICY, settings)
        users = {"alice": authority.client("alice", ["team-a"])}
        with serving(directory / "server.yaml") as (process, log):
            server = Server(directory, host, authority, users, process, log)
            say(f"A cluster of {len(NODES)} nodes, and a server whose jobs run on it.")
            story(server, cluster)
    say("That was it: nothing of it is left.")


if __name__ == "__main__":
    main()
