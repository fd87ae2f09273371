"""Rules of one attempt, without I/O: what a handler meant, what must be sent, in which order.

May import ``wire`` and ``errors``. Called by ``worker``, which carries out what is decided here.
"""
