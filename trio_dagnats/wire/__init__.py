"""Facts and rules of the wire, without I/O: names, messages in and out, workflows, runs.

May import pydantic and ``errors``. Everybody calls it; the wire contract's sections are named
beside what was taken from them.
"""
