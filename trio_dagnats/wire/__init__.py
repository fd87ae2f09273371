"""Facts and rules of the wire, without I/O: names, messages in and out, workflows, runs.

May import pydantic and ``errors``. Everybody calls it; citations ("contract 6.7") are
sections of ``docs/internals``, where the facts stand. What a workflow may say stands in the room
below, ``definitions``.
"""
