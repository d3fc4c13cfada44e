"""The engine of this host: how a job becomes processes here.

Stands on output, host and keeper. Used by core.
"""
