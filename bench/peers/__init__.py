"""What job-worker is measured beside.

Used by parts.
"""
