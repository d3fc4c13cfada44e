"""A user's own files: settings, key and certificate.

Stands on cli and its display; main finds its commands by name.
"""
