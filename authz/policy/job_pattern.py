"""Which jobs a rule is about: `TENANT/OWNER`.

Each side is a glob over names (`*`, `?`), the tenant may be `{ou}`, any of
one's own, and the owner `{cn}`, oneself. A placeholder stands for a whole side:
`{ou}*` would open team-secret to team.
"""

from functools import lru_cache

from jobworker.authz.identity import Identity
from jobworker.authz.policy.globs import text_glob

OWN_TENANT = "{ou}"
ONESELF = "{cn}"
# More than the different patterns of any policy; what does not fit is compiled again.
_CACHED = 65_536


def split_pattern(pattern: str) -> tuple[str, str]:
    """Return the tenant's and the owner's side of a valid pattern."""
    tenant, _, owner = pattern.partition("/")
    return tenant, owner


def is_about(pattern: str, tenant: str, owner: str, identity: Identity) -> bool:
    """Whether a job of `owner` for `tenant` is one that `pattern` means for `identity`."""
    tenants, owners = split_pattern(pattern)
    if owners == ONESELF:
        owned = owner == identity.common_name
    else:
        owned = owners == "*" or _glob(owners)(owner)
    if not owned:
        return False
    if tenants == OWN_TENANT:
        return tenant in identity.tenants
    return tenants == "*" or _glob(tenants)(tenant)


def meant_by(pattern: str, identity: Identity) -> tuple[str, ...]:
    """What a pattern stands for with an identity's own names in it: one for each tenant."""
    tenants, owners = split_pattern(pattern)
    own = identity.tenants if tenants == OWN_TENANT else (tenants,)
    owner = identity.common_name if owners == ONESELF else owners
    return tuple(f"{tenant}/{owner}" for tenant in own)


_glob = lru_cache(maxsize=_CACHED)(text_glob)
