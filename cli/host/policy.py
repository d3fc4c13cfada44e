"""`jobworker policy`: checks, converts, tries and explains policies, without a server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, ExitCode, printable, tell
from jobworker.cli.options import OutputFormat, output_option, say_json
from jobworker.cli.suggestions import SuggestingGroup

if TYPE_CHECKING:
    from jobworker.authz.policy.rules import Rule
    from jobworker.authz.workbench.diff import Change
    from jobworker.authz.workbench.explanation import Explanation

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ACTIONS = (
    *("start", "stop", "signal", "status", "output", "list"),
    *("attach", "forward", "put", "get", "audit", "renew"),
)


@click.group(cls=SuggestingGroup)
def policy() -> None:
    """Check, convert, try and explain policies, without a server."""


@policy.command()
@click.argument("files", type=_FILE, nargs=-1, required=True, metavar="FILE...")
@output_option
def check(files: tuple[Path, ...], output: OutputFormat) -> None:
    """Say whether each FILE is a policy that a server would take.

    It must be one, and decide as the cases beside it expect (see `jobworker
    policy test`). What is doubtful is told, too. Exits with 1 if one is no good.
    """
    import msgspec

    from jobworker.authz.workbench.lint import examine

    examined = [examine(file) for file in files]
    if output == "json":
        click.echo(b"".join(msgspec.json.encode(one) + b"\n" for one in examined), nl=False)
    for one in examined:
        if one.error is not None:
            tell(one.error, ExitCode.FAILED)
        elif output == "text":
            counted = f"{_counted(one.rules, 'rule')}, {_counted(one.grants, 'grant')}"
            _say(f"{one.file}: {counted}, version {one.version:.12}")
            for doubt in one.doubts:
                _say(f"  {doubt}")
    if any(one.error is not None for one in examined):
        raise SystemExit(ExitCode.FAILED)


@policy.command()
@click.argument("file", type=_FILE)
@click.option("--to", "form", type=click.Choice(["csv", "yaml"]), help="[default: the other form]")
def convert(file: Path, form: str | None) -> None:
    """Print the policy in FILE in the other form, without its comments."""
    with _telling():
        from jobworker.authz.policy.csv_form import write_csv
        from jobworker.authz.policy.policy import load_policy
        from jobworker.authz.policy.yaml_writer import write_yaml

        statements = load_policy(file).statements
    form = form or ("yaml" if file.suffix == ".csv" else "csv")
    click.echo((write_csv if form == "csv" else write_yaml)(statements), nl=False)


@policy.command("test")
@click.argument("file", type=_FILE)
@click.option("--cases", type=_FILE, help="The cases.  [default: NAME.cases.yaml beside FILE]")
@output_option
def try_cases(file: Path, cases: Path | None, output: OutputFormat) -> None:
    """Try the cases beside FILE, and print those that it decides otherwise.

    \b
    - who: cn=alice ou=team-a
      may: [start, stop]        # or may-not
      job: team-a/alice         # TENANT/OWNER
      command: /bin/ls          # for start, with arguments: [...]
    """
    with _telling():
        from jobworker.authz.policy.cases import cases_file, failures, load_cases
        from jobworker.authz.policy.policy import load_policy

        read = load_cases(cases or cases_file(file))
        failed = failures(load_policy(file), read)
    if output == "json":
        say_json({"cases": len(read), "failures": [str(one) for one in failed]})
    else:
        for one in failed:
            _say(str(one))
        _say(f"{len(read) - len(failed)} of {len(read)} cases hold")
    if failed:
        raise SystemExit(ExitCode.FAILED)


@policy.command()
@click.argument("file", type=_FILE)
@click.option(
    "--as", "who", required=True, metavar="'cn=NAME ou=TENANT,TENANT'", help="Who is asking."
)
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("job", metavar="TENANT/OWNER")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]")
@output_option
def explain(
    *, file: Path, who: str, action: str, job: str, command: tuple[str, ...], output: OutputFormat
) -> None:
    """Say how the policy in FILE decides, and by which rule or for want of which.

    \b
    jobworker policy explain policy.yaml --as 'cn=alice ou=team-a' stop team-a/bob
    jobworker policy explain policy.yaml --as cn=cy start /cy -- /bin/ls -l

    Exits with 1 if it refuses.
    """
    with _telling():
        from jobworker.authz.policy.cases import parse_identity, parse_job
        from jobworker.authz.policy.policy import load_policy
        from jobworker.authz.policy.statements import Text
        from jobworker.authz.workbench.explanation import explain as explained
        from jobworker.authz.yaml_text import Place

        identity = parse_identity(Text(who, Place("--as", 1, 1)))
        program = command[0] if command else ""
        facts = parse_job(Text(job, Place("TENANT/OWNER", 1, 1)), program, command[1:])
        explanation = explained(load_policy(file), identity, action, facts)
    if output == "json":
        say_json(_explanation_fields(explanation))
    else:
        _say_explanation(explanation)
    if not explanation.decision.allowed:
        raise SystemExit(ExitCode.FAILED)


@policy.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option(
    "--ca",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Ask about everybody with a valid certificate of this CA, not about samples.",
)
@output_option
def diff(old: Path, new: Path, directory: Path | None, output: OutputFormat) -> None:
    """Print what the policy in NEW decides otherwise than that in OLD.

    Both are asked about everybody of one tenant or none, by a sample for each
    way in which their names and globs tell requests apart: somebody-else,
    another-tenant and /any/other/command stand for what neither names. People
    of several tenants are asked about with --ca. Exits with 1 if they differ.
    """
    with _telling():
        from jobworker.authz.ca.authority import identities_of
        from jobworker.authz.policy.policy import load_policy
        from jobworker.authz.workbench.diff import difference

        identities = None if directory is None else identities_of(directory)
        found = difference(load_policy(old), load_policy(new), identities)
    if output == "json":
        for change in found.changes:
            say_json(_change_fields(change))
    elif found.changes:
        for line in _change_lines(found.changes):
            _say(line)
    else:
        whom = "anybody of one tenant or none" if directory is None else "those with certificates"
        _say(f"no decision changes for {whom}")
    if not found.complete:
        tell(
            "these policies' globs tell apart more than was tried: "
            "there may be changes that are not listed"
        )
    if found.changes:
        raise SystemExit(ExitCode.FAILED)


@contextmanager
def _telling() -> Iterator[None]:
    from jobworker.authz.errors import AuthzError

    try:
        yield
    except AuthzError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _say(line: str) -> None:
    click.echo(printable(line))


def _rule_line(rule: "Rule") -> str:
    command = "" if rule.command == "**" else f" of {rule.command}"
    arguments = "" if rule.arguments == "**" else f" with {rule.arguments or 'no arguments'}"
    return (
        f"{rule.place}: {rule.effect} {rule.action}{command}{arguments}"
        f" to {rule.subject} on {rule.jobs}"
    )


def _say_explanation(explanation: "Explanation") -> None:
    _say(explanation.decision.reason)
    _say(f"for the rules they are: {', '.join(explanation.subjects)}")
    for rule in explanation.matching:
        decides = "decides" if rule == explanation.decision.rule else "matches"
        _say(f"{decides}: {_rule_line(rule)}")
    if not explanation.matching:
        _say("no rule matches" + (", the nearest are" if explanation.near else ""))
        for near in explanation.near:
            _say(f"  {_rule_line(near.rule)}")
            _say(f"    but {', and '.join(near.unmet)}")


def _explanation_fields(explanation: "Explanation") -> dict[str, object]:
    decision = explanation.decision
    return {
        "allowed": decision.allowed,
        "reason": decision.reason,
        "rule": _rule_line(decision.rule) if decision.rule else None,
        "subjects": explanation.subjects,
        "matching": [_rule_line(rule) for rule in explanation.matching],
        "near": [{"rule": _rule_line(near.rule), "unmet": near.unmet} for near in explanation.near],
    }


def _change_fields(change: "Change") -> dict[str, object]:
    return {
        "identity": str(change.identity),
        "action": change.action,
        "tenant": change.job.tenant,
        "owner": change.job.owner,
        "command": [change.job.command, *change.job.arguments] if change.job.command else [],
        "allowed": change.new.allowed,
        "old_reason": change.old.reason,
        "new_reason": change.new.reason,
    }


def _change_lines(changes: Sequence["Change"]) -> Iterator[str]:
    for about, group in groupby(changes, _about):
        actions = ", ".join(change.action for change in group)
        identity, job, command, verdict, rule = about
        yield f"{identity}: {actions} on {job}{command} is now {verdict} ({rule})"


def _about(change: "Change") -> tuple[str, str, str, str, str]:
    """Return all but the action, in words."""
    job = change.job
    command = f" of {' '.join((job.command, *job.arguments))}" if job.command else ""
    # What allows, or no longer does, or denies.
    decides = change.new.rule or change.old.rule
    place = str(decides.place) if decides else ""
    by = place if change.new.rule else f"{place} did allow it"
    verdict = "allowed" if change.new.allowed else "refused"
    return str(change.identity), f"{job.tenant}/{job.owner}", command, verdict, by
