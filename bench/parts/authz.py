"""What a decision costs, under a small policy and a large one, beside casbin by itself.

And whether the two decide the same: under small policies, for casbin needs
100 ms for each decision under the large one, where a few are compared as well.
"""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from operator import truediv

from bench.measure import Figure, percentile, repeated
from bench.peers.plain_casbin import Request, plain_casbin
from bench.report import Row, table
from jobworker.authz.identity import Identity
from jobworker.authz.policy.judge import JobFacts
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rules import (
    ACTIONS,
    ANY_ARGUMENTS,
    ANY_COMMAND,
    Grant,
    Rule,
    Statements,
)
from jobworker.authz.yaml_text import Place

SMALL, LARGE = 10, 10_000
GOAL_P50, GOAL_P99, GOAL_RATIO = 100.0, 500.0, 2.0
TIMED, TIMED_BY_CASBIN = 4_000, 40
COMPARED, WORLDS, WORLD_SIZE = 100_000, 100, 40
USERS_PER_TENANT = 20
LEVELS = 6
OWN = "job-worker"
EXPIRY = datetime(2040, 1, 1, tzinfo=UTC)
COMMANDS = ("/bin/ls", "/usr/bin/python3", "/opt/tool/run", "/usr/bin/sudo", "make", "/a/../b")
HERE = Place("bench", 1, 1)


class World:
    """So many rules, users and role grants, and who asks for what under them."""

    def __init__(self, size: int, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._size = size
        self._tenants = max(1, size // USERS_PER_TENANT)
        self.statements = Statements(tuple(self._rules()), tuple(self._grants()))

    def requests(self, count: int) -> list[Request]:
        """Return random requests; half of them are about one's own jobs."""
        return [self._request() for _ in range(count)]

    def _request(self) -> Request:
        draw = self._random
        user = draw.randrange(self._size)
        tenants = {self._tenant_of(user), *draw.sample(range(self._tenants), draw.randrange(2))}
        identity = Identity(
            f"user-{user}", tuple(f"team-{number}" for number in tenants), "1", EXPIRY
        )
        own = draw.random() < 0.5
        owner = user if own else draw.randrange(self._size)
        tenant = draw.choice(identity.tenants) if own else f"team-{self._tenant_of(owner)}"
        arguments = ("-m", "pytest")[: draw.randrange(3)]
        job = JobFacts(f"user-{owner}", tenant, draw.choice(COMMANDS), arguments)
        return identity, draw.choice(ACTIONS), job

    def _rules(self) -> list[Rule]:
        everybody = [
            _rule("role:member-0", "read", "{ou}/{cn}"),
            _rule(f"role:member-{LEVELS - 1}", "stop", "{ou}/{cn}"),
            _rule("cn:*", "start", "*/*", "deny", "/usr/bin/sudo"),
            _rule("role:lead", "*", "*/*"),
        ]
        kinds = cycle((self._users_rule, self._tenants_rule, self._commands_rule, self._denial))
        return everybody + [
            kind(number) for number, kind in enumerate(islice(kinds, self._size - len(everybody)))
        ]

    def _users_rule(self, number: int) -> Rule:
        return _rule(f"cn:user-{number}", "signal", f"team-{self._tenant_of(number)}/*")

    def _tenants_rule(self, number: int) -> Rule:
        tenant = self._tenant_of(number)
        return _rule(f"ou:team-{tenant}", "start", f"team-{tenant}/{{cn}}", "allow", "/bin/*")

    def _commands_rule(self, number: int) -> Rule:
        tenant = self._tenant_of(number)
        command = f"/opt/tool/run-{number}" if number % 2 else "/usr/bin/python3"
        return _rule(f"ou:team-{tenant}", "start", f"team-{tenant}/*", "allow", command, "-m **")

    def _denial(self, number: int) -> Rule:
        return _rule(f"cn:user-{number}", "output", f"*/user-{number // 2}", "deny")

    def _grants(self) -> list[Grant]:
        nested = [
            Grant(f"role:member-{level}", f"role:member-{level + 1}", "*", HERE)
            for level in range(LEVELS - 1)
        ]
        members = [
            Grant(f"cn:user-{user}", f"role:member-{user % LEVELS}", "*", HERE)
            for user in range(self._size)
        ]
        leads = [
            Grant(f"cn:user-{tenant}", "role:lead", f"team-{tenant}", HERE)
            for tenant in range(self._tenants)
        ]
        return nested + members + leads

    def _tenant_of(self, user: int) -> int:
        return user % self._tenants


def main() -> None:
    """Measure, compare, and print both."""
    worlds = {size: World(size) for size in (SMALL, LARGE)}
    policies = {size: Policy(world.statements) for size, world in worlds.items()}
    casbin_decides = plain_casbin(worlds[LARGE].statements)
    asked = worlds[LARGE].requests(TIMED_BY_CASBIN)
    times = repeated(
        {
            "small": lambda: _times(_deciding(policies[SMALL]), worlds[SMALL].requests(TIMED)),
            "large": lambda: _times(_deciding(policies[LARGE]), worlds[LARGE].requests(TIMED)),
            "casbin": lambda: _times(casbin_decides, asked),
        }
    )
    small, large, casbin = times.values()
    p50, p99 = _figure(large, 0.5), _figure(large, 0.99)
    ratio = Figure(tuple(map(truediv, p50.values, _figure(small, 0.5).values)))
    rows = [
        Row("half of all decisions", "µs", _beside(p50, casbin, 0.5), goal=GOAL_P50),
        Row("99 of 100 decisions", "µs", _beside(p99, casbin, 0.99), goal=GOAL_P99),
        Row(f"half of them, over that under {SMALL} rules", "x", {OWN: ratio}, goal=GOAL_RATIO),
    ]
    print(table(f"Decisions under {LARGE:,} rules, {LARGE:,} users, {LEVELS} nested roles", rows))
    compared = {
        f"{COMPARED:,} requests under {WORLDS} policies of {WORLD_SIZE} rules": _compare_small(),
        f"{len(asked)} requests under {LARGE:,} rules": _differing(
            policies[LARGE], casbin_decides, asked
        ),
    }
    differing = [
        Row(f"of {what}", "decisions", {OWN: Figure((count,))}, goal=0)
        for what, count in compared.items()
    ]
    print(table("Decisions that differ from casbin's own", differing))


def _figure(rounds: Sequence[Sequence[float]], part: float) -> Figure:
    return Figure(tuple(percentile(times, part) for times in rounds))


def _beside(own: Figure, casbin: Sequence[Sequence[float]], part: float) -> dict[str, Figure]:
    return {OWN: own, "casbin's Enforcer": _figure(casbin, part)}


def _compare_small() -> int:
    differing = 0
    for seed in range(WORLDS):
        world = World(WORLD_SIZE, seed)
        differing += _differing(
            Policy(world.statements),
            plain_casbin(world.statements),
            world.requests(COMPARED // WORLDS),
        )
    return differing


def _differing(
    policy: Policy, casbin_decides: Callable[[Request], bool], requests: Sequence[Request]
) -> int:
    decide = _deciding(policy)
    return sum(decide(request) != casbin_decides(request) for request in requests)


def _deciding(policy: Policy) -> Callable[[Request], bool]:
    # What is remembered costs nothing, whoever decided it.
    return lambda request: policy.decide_anew(*request).allowed


def _times(decide: Callable[[Request], bool], requests: Sequence[Request]) -> list[float]:
    """Return the microseconds of each decision."""
    times = []
    for request in requests:
        begin = time.perf_counter_ns()
        decide(request)
        times.append((time.perf_counter_ns() - begin) / 1000)
    return times


def _rule(
    subject: str,
    action: str,
    jobs: str,
    effect: str = "allow",
    command: str = ANY_COMMAND,
    arguments: str = ANY_ARGUMENTS,
) -> Rule:
    return Rule(subject, action, jobs, effect, command, arguments, HERE)


if __name__ == "__main__":
    main()
