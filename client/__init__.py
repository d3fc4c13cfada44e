"""Talking to a remote server: connections, output over outages, why a call failed.

Stands on proto. Used by the command, which puts its errors into sentences and exit codes.
"""
