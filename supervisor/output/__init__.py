"""A job's bytes: from its pipes into segments and an index, and out again to any reader.

Stands on job, and for `follow` on ipc. Used by local, core, the library and the front.
"""
