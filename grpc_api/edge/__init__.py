"""The TLS edge: who may connect, over what, and as whom; bytes to and from gRPC.

Stands on authz's identities. Used by front and upkeep.
"""
