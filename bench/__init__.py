"""Measures job-worker beside ssh and supervisord. `python -m bench` runs it all."""
