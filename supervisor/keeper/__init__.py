"""PROCESS 1, the keeper: parent of every job, and of the supervisor and the front.

Imports nothing of ours outside this room, and nothing but the standard library.

A keeper that lives through an upgrade makes its children import `child` and
`packets` of the new code by these paths, and runs as `-m` of this package: the
three names are an interface that stays.
"""
