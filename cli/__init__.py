"""The jobworker command."""
