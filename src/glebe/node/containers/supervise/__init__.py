"""What a container's supervisor consists of: plain modules that import nothing of Glebe but each other.

They start under ``python -I -S`` in some 12 ms: no ``json``, ``re``, ``enum``, ``typing`` or ``contextlib`` here.
"""
