"""Who holds which roles: the role manager that casbin asks in `g(...)`."""

from collections import defaultdict
from functools import lru_cache

from casbin.rbac import RoleManager

from jobworker.authz.identity import Identity
from jobworker.authz.policy.rules import ANY_MEMBER, ANYBODY, EVERYWHERE

# (identity, tenant) pairs; what does not fit is worked out again.
_CACHED = 8192


class Roles(RoleManager):  # type: ignore[misc] # casbin has no types
    """Role grants, nested to any depth, each for the jobs of one tenant or of all.

    casbin's own role managers know one name for a user; an identity goes by its
    CN and all of its OUs. They also stop, silently, at ten levels.
    """

    def __init__(self) -> None:
        self._held: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._subjects_of = lru_cache(maxsize=_CACHED)(self._resolve)

    def add_link(self, name1: str, name2: str, *domain: str) -> None:
        """Let `name1` hold the role `name2` for the jobs of the tenant `domain`."""
        (tenant,) = domain
        self._held[name1].append((name2, tenant))
        self._subjects_of.cache_clear()

    def has_link(self, name1: Identity, name2: str, *domain: str) -> bool:
        """Whether `name1` is or holds the subject `name2` for the jobs of the tenant `domain`."""
        (tenant,) = domain
        return name2 in self.subjects_of(name1, tenant)

    def clear(self) -> None:
        """Forget all grants."""
        self._held.clear()
        self._subjects_of.cache_clear()

    def print_roles(self) -> None:
        """Print nothing; casbin calls this to log at a level nobody asked for."""

    def subjects_of(self, identity: Identity, tenant: str) -> frozenset[str]:
        """Return every subject that a rule about the tenant's jobs may name for the identity."""
        return self._subjects_of(identity.common_name, identity.tenants, tenant)

    def _resolve(self, name: str, tenants: tuple[str, ...], tenant: str) -> frozenset[str]:
        pending = [ANYBODY, f"cn:{name}"]
        if tenants:
            pending += [ANY_MEMBER, *(f"ou:{own}" for own in tenants)]
        subjects = set(pending)
        while pending:
            for role, scope in self._held.get(pending.pop(), ()):
                if scope in (EVERYWHERE, tenant) and role not in subjects:
                    subjects.add(role)
                    pending.append(role)
        return frozenset(subjects)
