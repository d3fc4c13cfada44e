"""Pages that the server renders: they work without a script.

It stands on console's own files. Used by console/app.py.
"""
