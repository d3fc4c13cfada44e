"""How jobs, usage and output are shown.

Stands on errors and quantities. Used by commands.
"""
