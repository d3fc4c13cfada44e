"""What can-i says of a start is what the start then comes to: random policies, callers, options."""

import os
import random
from collections import Counter
from pathlib import Path

import grpc

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.client import calling, wait
from tests.support.server import Server, running_server

QUESTIONS = 60
# Nobody, one tenant, two, and none.
CALLERS = {"alice": ["a"], "bob": ["a", "b"], "cy": [], "dee": ["b"]}
SETTINGS = f"""\
quotas: {{user: {{running: 2}}, tenants: {{a: {{running: 3}}}}}}
jobs:
  limits: {{most: {{open_files: 1000}}, tenants: {{b: {{most: {{open_files: 100}}}}}}}}
  isolation: {{tenants: {{b: {{profile: private}}}}}}
  users: {"{jobs_run_as_root: true}" if os.geteuid() == 0 else "null"}
"""
REFUSED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


def random_policy(chance: random.Random) -> str:
    """The rules of a policy in YAML, about starts alone but for one."""
    rules = ['  - {allow: [stop, read], to: "cn:*", jobs: "*/{cn}"}']
    subjects = [*(f"cn:{name}" for name in CALLERS), "cn:*", "ou:a", "ou:b", "ou:*"]
    if chance.random() < 0.8:
        rules.append('  - {allow: start, to: "cn:*", jobs: "*/{cn}"}')
    for _ in range(chance.randrange(3, 7)):
        effect = chance.choice(["allow", "allow", "allow", "allow", "deny"])
        jobs = f"{chance.choice(['a', 'b', '*', '{ou}'])}/{chance.choice(['*', '{cn}', 'bob'])}"
        command = chance.choice(["", ", command: /bin/true", ', command: "/bin/*"'])
        subject = chance.choice(subjects)
        rules.append(f'  - {{{effect}: start, to: "{subject}", jobs: "{jobs}"{command}}}')
    return "\n".join(["rules:", *rules, ""])


def random_start(chance: random.Random) -> pb.StartRequest:
    """A start: mostly one that is well formed."""
    odd = chance.random() < 0.3
    program = chance.choice([["/bin/true"], ["true"], ["/bin/sleep", "1000"]])
    request = pb.StartRequest(
        commandName=program[0],
        Arguments=program[1:],
        tenant=chance.choice(["", "", "a", "b", "c"]),
        limits=pb.Limits(openFiles=chance.choice([0, 0, 64, 500, 5000])),
        isolation=chance.choice([0, 0, 0, 1, 2]),
        noNetwork=chance.random() < 0.1,
        requestID=chance.choice(["", "", "key"]),
    )
    if odd:
        for name, value in chance.choice(
            [
                {"workingDirectory": "x" * 5000},
                {"requestID": "no key!"},
                {"graceSeconds": -1.0},
                {"timeoutSeconds": float("inf")},
                {"environment": {"": "x"}},
                {"outputLimit": pb.OutputLimit(bytes=1)},
                {"limits": pb.Limits(openFiles=1)},
                {"limits": pb.Limits(memoryBytes=2**60)},
                {"Arguments": ["\0"]},
                {"isolation": 7},
            ]
        ).items():
            request.ClearField(name)
            request.MergeFrom(pb.StartRequest(**{name: value}))
    return request


def asked(worker: WorkerServiceStub, request: pb.StartRequest) -> str:
    """What can-i says: empty for yes, else why not."""
    try:
        answer = worker.CanI(pb.CanIRequest(action="start", start=request))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return str(error.details())
    assert answer.reason
    return "" if answer.allowed else answer.reason


def done(worker: WorkerServiceStub, request: pb.StartRequest) -> tuple[str, grpc.StatusCode]:
    """What the start comes to: empty if it was done, else why not."""
    try:
        job = worker.Start(request).jobID
    except grpc.RpcError as error:
        return str(error.details()), error.code()
    if request.commandName != "/bin/sleep":
        # What has ended counts for no quota any more, which must not change in between.
        wait(worker, job)
    return "", grpc.StatusCode.OK


def compare(server: Server, chance: random.Random) -> Counter[grpc.StatusCode]:
    """Ask and do; how often it came to what."""
    seen: Counter[grpc.StatusCode] = Counter()
    for _ in range(QUESTIONS):
        caller, request = chance.choice(list(CALLERS)), random_start(chance)
        with calling(server, caller) as worker:
            said = asked(worker, request)
            came, code = done(worker, request)
            assert said == came, f"{caller}: {request}"
            seen[code] += 1
            if chance.random() < 0.1:
                for job in worker.List(pb.ListRequest(running=True, owner=caller)).jobs:
                    worker.Stop(pb.StopRequest(jobID=job.jobID, graceSeconds=0))
    return seen


def test_can_i_says_what_the_start_comes_to(tmp_path: Path) -> None:
    """can-i looked at the policy alone: it said yes where quota, limits or isolation said no."""
    seen: Counter[grpc.StatusCode] = Counter()
    for seed in range(4):
        chance = random.Random(seed)
        directory = tmp_path / str(seed)
        directory.mkdir()
        with running_server(directory, (), random_policy(chance), SETTINGS) as server:
            for name, tenants in CALLERS.items():
                server.users[name] = server.authority.client(name, tenants)
            seen += compare(server, chance)
    assert seen[grpc.StatusCode.OK] > QUESTIONS // 4, seen
    assert all(seen[code] for code in REFUSED), seen
