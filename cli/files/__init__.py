"""The command `cp`: files into jobs' directories and out of them.

It stands on cli and client; main.py imports it when it is called.
"""
