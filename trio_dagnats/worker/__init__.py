"""The worker: handlers, contexts, attempts, and the nurseries that hold them.

May import ``attempt``, ``transport``, ``wire`` and ``errors``. Called by the user through
:class:`~trio_dagnats.Worker`, and by the command line and the test harness.
"""
