"""`hilgate doctor`: what is wrong on a host, found without changing anything.

Each check is one module: it gathers facts (I/O) and judges them (pure functions from facts to a `Finding`).
`checks` lists them, `examine` runs them beside each other.
"""
