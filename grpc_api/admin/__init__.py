"""What the host's administrator may always do, over a unix socket; policies have no say in it.

Stands on the service's messages and the supervisor's door. Used by front, and by the command.
"""
