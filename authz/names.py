"""What users and tenants may be called.

Names end up in policies, paths, logs and terminals, so only characters that
mean nothing in any of them are let in. Case counts: `alice` is not `Alice`.
"""

import re

# X.520 bounds a common name and an organizational unit to 64 characters
# (ub-common-name and ub-organizational-unit-name in RFC 5280, appendix A.1).
MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME - 1}}}", re.ASCII)
_SHOWN = 40


def objection_to_name(name: str) -> str | None:
    """Say why `name` can be no user's or tenant's name; None if it can."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"is {len(name)} characters long, {MAX_NAME} are allowed"
    if not _NAME.fullmatch(name):
        return "may only hold A-Z a-z 0-9 . _ @ - and must begin with a letter or digit"
    if ".." in name:
        return "must not hold two dots in a row"
    return None


def shown(text: str) -> str:
    """Return `text` for a message: quoted, ASCII alone, and cut when long."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return ascii(cut)
