"""What happens to jobs, as it happens: the command `events`.

Stands on what shows jobs; main finds it by name.
"""
