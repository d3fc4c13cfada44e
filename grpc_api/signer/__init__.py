"""The **signer**: a process beside the service that has the CA's key, and renews certificates.

Stands on authz's CA. `jobworker ca signer` is the process; the front's service asks it.
"""
