"""What keeps a front healthy: reloading, watching files, health, metrics, memory.

Stands on edge and guard. Used by front.
"""
