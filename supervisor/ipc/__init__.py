"""What travels between a supervisor and who uses it: frames, messages, both ends of the pipe.

Stands on proto, job, quotas, host and errors. Doors: `client` for the front, `server` for core.
"""
