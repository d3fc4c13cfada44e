"""`jobworker top`: who uses what now, as it changes, on a terminal.

It stands on the command's options and words, and on the client. Nobody imports it but
cli/main.py, by name.
"""
