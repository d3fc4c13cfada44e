"""The audit log: a chain of records in files.

Stands on authz's identities and decisions. Used by the guard and `jobworker audit`.
"""
