"""The porter: a process that carries one file into a job's directory or out of it, as its user.

It stands on host. The engine starts porters, the front speaks to them (carriage.py).
"""
