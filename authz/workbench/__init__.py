"""What an administrator asks of a policy: why, what would change, what looks wrong.

Stands on policy. Used by `jobworker policy`.
"""
