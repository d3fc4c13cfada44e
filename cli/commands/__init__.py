"""A file for each command, or two that are one thing.

Stands on display, the options and the client. Found by name in cli/main.
"""
