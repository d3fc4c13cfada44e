"""What is on record of every job: one SQLite file, written by the supervisor alone.

Stands on job and ipc's query. Used by core.
"""
