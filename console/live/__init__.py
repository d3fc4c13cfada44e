"""What pages are told as it happens: server-sent events.

It stands on console's own files and pages. Used by console/app.py.
"""
