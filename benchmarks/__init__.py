"""How quick the library is, against the plain way of doing the same, on this machine: ``python -m benchmarks``."""
