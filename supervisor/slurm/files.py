"""Where on the shared directory the service and the nodes find what they say to each other.

`orders/` is the service's own: what a node is to run, and the signals for it. A job's
output directory is its user's: there the node says what became of it. Every attempt to start a
job has a nonce, which is part of each name. The standard library alone: nodes import this.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

# A file of this name is made once. Whoever makes it decides whether the program runs:
# a node, or the service, which has given up.
CLAIM = "claim"
STARTED = "started"
EXIT = "exit"


@dataclass(frozen=True)
class Order:
    """What a node is to execute, and how; texts are as exact_text has them.

    `rlimits` are numbers of setrlimit(2) with the limit. Of the output the newest `rotate`
    bytes are kept, or the first `most`, in segments; 0 for all. With more `memory` than that in
    bytes it is killed, 0 for any.
    """

    argv: list[str]
    environment: dict[str, str]
    cwd: str
    umask: int
    segment_bytes: int
    rotate: int = 0
    most: int = 0
    memory: int = 0
    no_new_privileges: bool = True
    rlimits: list[tuple[int, int]] = field(default_factory=list)

    def encode(self) -> bytes:
        """As the file has it; lone surrogates are escaped."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Order":
        """The inverse."""
        return cls(**json.loads(data))


@dataclass(frozen=True)
class Places:
    """The files of one attempt to start a job."""

    shared: Path
    job_id: str
    nonce: str

    @property
    def output(self) -> Path:
        """The job's directory, with its segments."""
        return self.shared / "output" / self.job_id

    @property
    def order(self) -> Path:
        """What is to run; a node that does not find it runs nothing."""
        return self.shared / "orders" / f"{self.job_id}.{self.nonce}.order"

    @property
    def signals(self) -> Path:
        """Lines such as `15 all`, `10 main` and `15 main stop`, which are added at its end."""
        return self.shared / "orders" / f"{self.job_id}.{self.nonce}.signals"

    def told(self, what: str) -> Path:
        """Where a node tells what became of the job: CLAIM, STARTED, EXIT."""
        return self.output / f"{self.nonce}.{what}"

    def claim(self) -> bool:
        """Make the claim; False where it is made already. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self.told(CLAIM), flags, 0o640))
        except FileExistsError:
            return False
        return True
