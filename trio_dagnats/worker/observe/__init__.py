"""What looks at attempts, and never writes to one.

``watchdog`` names the handler that blocks the event loop, ``stalled`` those that make no progress,
``micro_service`` answers those who ask from outside, ``task_trees`` tells where each trio task of
an attempt stands, ``health`` is how the worker is. Each takes a function that gives the attempts in
flight.

Public to the other rooms: ``Watchdog``, ``Standstills``, ``MicroService``, ``attempt_tree``.
May import ``attempts``. Called by ``service`` and ``drain``.
"""
