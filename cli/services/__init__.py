"""Services in a file: read, compared with what runs, and brought about.

Stands on the commands of jobs, whose options are a service's keys; main finds it by name.
"""
