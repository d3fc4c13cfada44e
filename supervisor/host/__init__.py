"""What Linux offers: cgroups, /proc, users, sandbox, limits.

Stands on keeper and errors. Decides nothing about jobs.
"""
