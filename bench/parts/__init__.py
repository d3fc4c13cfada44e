"""What is measured: each module has a `main` that measures and prints.

Found by name in bench/__main__.
"""
