"""The engine of a cluster: Slurm decides where and when, a node's recorder runs the program.

Stands on output and host; on the node alone, `node` stands on output alone. Used by core.
"""
