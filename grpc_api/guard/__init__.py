"""Who may call what, decided before any code of a method runs, and recorded.

Stands on authz and the supervisor's door. Used by service, front and the console.
"""
