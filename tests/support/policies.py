"""Policies for tests: identities, policies as text, and random ones."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from jobworker.authz.identity import Identity
from jobworker.authz.policy.judge import JobFacts
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rules import (
    ACTIONS,
    ANY_ARGUMENTS,
    ANY_COMMAND,
    COVERED,
    Grant,
    Rule,
    Statements,
)
from jobworker.authz.policy.yaml_form import read_yaml
from jobworker.authz.yaml_text import Place

EXPIRY = datetime(2040, 1, 1, tzinfo=UTC)
HERE = Place("policy", 1, 1)
# Few names, so that random requests meet random rules.
USERS = ("alice", "bob", "cy")
TENANTS = ("a", "ab", "b")
ROLES = ("role:one", "role:two", "role:three", "role:four")
COMMANDS = ("/bin/ls", "/usr/bin/python3", "/opt/a/b/c", "ls", "/bin/../bin/ls", "./ls", "/", "")
COMMAND_PATTERNS = (ANY_COMMAND, "*", "/bin/ls", "/bin/*", "/opt/**", "/**/c", "ls", "l?", "/*/ls")
ARGUMENTS = (
    (),
    ("/opt/x",),
    ("/opt/../x",),
    ("-l",),
    ("-m", "x y"),
    ("-m", "x", "-l"),
    ("*",),
    ("",),
)
ARGUMENT_PATTERNS = (
    ANY_ARGUMENTS,
    "/opt/*",
    "",
    "-l",
    "-m **",
    "** -l",
    "-m * **",
    "'x y'",
    "** ? **",
    "''",
)


def identity(cn: str, *tenants: str) -> Identity:
    """Somebody with these OUs."""
    return Identity(cn, tenants, "1", EXPIRY)


def policy(text: str) -> Policy:
    """The policy that this YAML says."""
    return Policy(read_yaml(text, "policy.yaml"))


@st.composite
def _rules(draw: st.DrawFn, subjects: st.SearchStrategy[str]) -> Rule:
    action = draw(st.sampled_from(sorted(COVERED)))
    start = action == "start"
    tenant = draw(st.sampled_from((*TENANTS, "*", "a*", "?", "{ou}", "")))
    owner = draw(st.sampled_from((*USERS, "*", "?y", "*o*", "{cn}")))
    return Rule(
        draw(subjects),
        action,
        f"{tenant}/{owner}",
        draw(st.sampled_from(("allow", "allow", "deny"))),
        draw(st.sampled_from(COMMAND_PATTERNS)) if start else ANY_COMMAND,
        draw(st.sampled_from(ARGUMENT_PATTERNS)) if start else ANY_ARGUMENTS,
        HERE,
    )


@st.composite
def statements(draw: st.DrawFn) -> Statements:
    """Draw a policy with roles that are nested, some for one tenant only."""
    people = [*(f"cn:{user}" for user in USERS), *(f"ou:{ou}" for ou in TENANTS), "cn:*", "ou:*"]
    grants: dict[Grant, None] = {}
    for level, role in enumerate(ROLES):
        # A role is held by people and by the roles before it, so none holds itself.
        members = draw(st.lists(st.sampled_from([*people, *ROLES[:level], "nobody"]), min_size=1))
        for member in members:
            scope = draw(st.sampled_from(("*", "*", *TENANTS)))
            grants[Grant(member, role, scope, HERE)] = None
    rules = draw(st.lists(_rules(st.sampled_from([*people, *ROLES])), max_size=12))
    return Statements(tuple(rules), tuple(grants))


def requests() -> st.SearchStrategy[tuple[Identity, str, JobFacts]]:
    """Draw who wants to do what to which job."""
    return st.tuples(
        st.builds(
            lambda cn, tenants: identity(cn, *tenants),
            st.sampled_from((*USERS, "dee")),
            st.lists(st.sampled_from((*TENANTS, "c")), unique=True, max_size=3),
        ),
        st.sampled_from(ACTIONS),
        st.builds(
            JobFacts,
            st.sampled_from((*USERS, "dee")),
            st.sampled_from((*TENANTS, "c", "")),
            st.sampled_from(COMMANDS),
            st.sampled_from(ARGUMENTS),
        ),
    )
