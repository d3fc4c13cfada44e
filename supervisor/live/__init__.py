"""The jobs that something is left to do for, and how what changes of them becomes durable.

Stands on the journal and the engine. PROCESS 2.
"""
