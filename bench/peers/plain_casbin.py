"""How casbin decides by itself: its own Enforcer over every rule, with its own role managers."""

from collections import defaultdict
from collections.abc import Callable

from casbin.rbac import RoleManager
from casbin.rbac.default_role_manager import RoleManager as StockRoleManager

from jobworker.authz.identity import Identity
from jobworker.authz.policy.judge import JobFacts, plain_enforcer
from jobworker.authz.policy.rules import Statements

MAX_NESTING = 1000
Request = tuple[Identity, str, JobFacts]


class StockRoles(RoleManager):  # type: ignore[misc] # casbin has no types
    """One of casbin's role managers for each tenant, asked for each name of an identity."""

    def __init__(self) -> None:
        self._links: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._managers: dict[str, StockRoleManager] = {}

    def add_link(self, name1: str, name2: str, *domain: str) -> None:
        """Let `name1` hold the role `name2` in a tenant, or in all (*)."""
        self._links[domain[0]].append((name1, name2))

    def has_link(self, name1: Identity, name2: str, *domain: str) -> bool:
        """Whether one of the identity's names is `name2` or holds it."""
        names = ["cn:*", f"cn:{name1.common_name}", *(f"ou:{ou}" for ou in name1.tenants)]
        if name1.tenants:
            names.append("ou:*")
        manager = self._manager(domain[0])
        return any(manager.has_link(name, name2) for name in names)

    def print_roles(self) -> None:
        """Print nothing."""

    def _manager(self, tenant: str) -> StockRoleManager:
        if tenant not in self._managers:
            self._managers[tenant] = StockRoleManager(MAX_NESTING)
            links = self._links["*"] + (self._links[tenant] if tenant != "*" else [])
            for member, role in links:
                self._managers[tenant].add_link(member, role)
        return self._managers[tenant]


def plain_casbin(statements: Statements) -> Callable[[Request], bool]:
    """Return casbin's own decision for a request."""
    enforcer = plain_enforcer(statements, StockRoles())

    def decide(request: Request) -> bool:
        identity, action, job = request
        return bool(enforcer.enforce(identity, action, job.tenant, job))

    return decide
