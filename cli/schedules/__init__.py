"""What runs again and again: the group `schedule`.

Stands on the commands of jobs, whose options it takes; main finds it by name.
"""
