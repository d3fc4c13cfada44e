"""The CA: keys, certificates, revocation lists and the index of them.

Stands on authz's identities and names. Used by `jobworker ca`.
"""
