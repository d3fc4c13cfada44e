"""Services in a file: read, compared with what runs, and brought about."""
