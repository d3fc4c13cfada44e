"""Talking to a remote server: connections, output over outages, what is said when it fails.

Stands on proto. Used by the command.
"""
