"""PROCESS 2, the supervisor: decides and records.

Stands on every other room of the supervisor. Only `process` is started from outside, by the keeper.
"""
