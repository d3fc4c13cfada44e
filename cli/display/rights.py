"""What one may do, as the server tells it: written as text or JSON."""

import json
from collections.abc import Iterator

from jobworker.cli.display.table import table_text, terminal_width
from jobworker.cli.display.usage import limits_json, limits_text
from jobworker.cli.errors import printable
from jobworker.cli.quantities import size_text
from jobworker.client.messages import told, word
from jobworker.proto import workerservice_pb2 as pb

_HEADS = ("EFFECT", "ACTION", "JOBS", "COMMAND", "ARGUMENTS", "AS", "RULE")
_ANY = "**"


def rights_text(answer: pb.RightsResponse) -> str:
    """Return a table of the rules, and what jobs may have in each tenant."""
    if not answer.rights:
        rules = "no rule of the policy is about you: you may do nothing"
    else:
        rules = table_text([_HEADS, *map(_cells, answer.rights)], terminal_width())
    return "\n".join([rules, *map(allowance_text, answer.allowances)])


def _cells(right: pb.Right) -> tuple[str, ...]:
    start = right.action in {"start", "*"}
    within = f" within {','.join(right.tenants)}" if right.tenants else ""
    cells = (
        right.effect,
        right.action,
        " ".join(right.jobs) + within,
        right.command if start and right.command != _ANY else "any" if start else "-",
        (right.arguments if right.arguments != _ANY else "any") or "none" if start else "-",
        right.subject,
        right.rule,
    )
    return tuple(map(printable, cells))


def allowance_text(allowance: pb.Allowance) -> str:
    """Return what jobs may have in a tenant, as a line."""
    whose = f"jobs of tenant {allowance.tenant}" if allowance.tenant else "jobs"
    return printable(f"{whose}: {'; '.join(_phrases(allowance))}")


def _phrases(allowance: pb.Allowance) -> Iterator[str]:
    private = allowance.isolation == pb.ISOLATION_PRIVATE
    without = ", without network" if allowance.noNetwork else ""
    yield f"isolation {'private' if private else 'none'} at least{without}"
    if allowance.devices:
        yield f"private ones find {' '.join(allowance.devices)}"
    for whose, quota in (("you", allowance.userQuota), ("the tenant", allowance.tenantQuota)):
        if counted := ", ".join(_quota_phrases(quota)):
            yield f"{whose} at most {counted}"
    for name, limits in (("most", allowance.mostLimits), ("default", allowance.defaultLimits)):
        if counted := limits_text(limits):
            yield f"each {name} {counted}"


def _quota_phrases(quota: pb.Quota) -> Iterator[str]:
    if quota.running:
        yield f"{quota.running} running"
    if quota.startsPerMinute:
        yield f"{quota.startsPerMinute} starts a minute"
    if quota.outputBytes:
        yield f"{size_text(quota.outputBytes)} of output"


def rights_json(answer: pb.RightsResponse) -> str:
    """Return it as one line of JSON; 0 or null is no limit, `**` any."""
    return json.dumps(
        {
            "rights": [_right_json(right) for right in answer.rights],
            "allowances": [_allowance_json(allowance) for allowance in answer.allowances],
        }
    )


def _right_json(right: pb.Right) -> dict[str, object]:
    return {
        "effect": right.effect,
        "action": right.action,
        "jobs": list(right.jobs),
        "tenants": list(right.tenants),
        "command": right.command,
        "arguments": right.arguments,
        "subject": right.subject,
        "rule": right.rule,
    }


def _allowance_json(allowance: pb.Allowance) -> dict[str, object]:
    return {
        "tenant": allowance.tenant,
        "user_quota": told(allowance.userQuota),
        "tenant_quota": told(allowance.tenantQuota),
        "default_limits": limits_json(allowance.defaultLimits),
        "most_limits": limits_json(allowance.mostLimits),
        "isolation": word(pb.Isolation.DESCRIPTOR, allowance.isolation),
        "network": not allowance.noNetwork,
        "devices": list(allowance.devices),
    }
