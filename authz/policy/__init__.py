"""Rules: read from YAML and CSV, compiled for casbin, decided.

Stands on authz's identities and names. Used by the guard, the workbench and the audit log.
"""
