"""What the rules read in JSON: a step's input, a place in it, whether it fits a schema.

``inputs`` says what a step gets and whether it is to be skipped, ``paths`` finds a value at a dot
path and compares two, ``schema`` checks a run's input before it starts. None of them changes a
run: they look at a ``RunState`` or at plain JSON values and give an answer.

Bytes are kept as they came wherever that is possible (an output becomes an input without being
parsed), because a number or the order of keys may not survive a parse and a dump.

May import ``core.state`` and ``wire``; nothing of the rules, which are above it. Called by the
rules in ``core``, and by the shell for keys of locks and rates, waiters, and checks of inputs.

Words: a *dot path* is ``a.b.c``, the keys of objects one after the other; lists have none.
"""
