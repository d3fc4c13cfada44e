"""The commands of the host's administrator: serving, and what they keep in order there.

A file for each, found by name in cli/main. Stands on display, the options, and on the
server itself, which `commands` does without.
"""
