"""The worker: handlers, contexts, attempts, and the nurseries that hold them.

::

    worker.py     Worker, what users make: registers, starts, stops
    service.py    one run of it: the nurseries, the drain, who is put together with whom
       │
       ├─ handlers/    from a user's function to a Handler(served, program)
       │     └─ context/    what a handler can do; one module a power
       ├─ drain/       signals of the process, the end of the grace, what became of whom
       │     └─ observe/    looks at attempts, and never writes to one
       └─ execution/   an attempt from its delivery to its answer
             └─ attempts/    Attempt, InFlight, Program; memory, waiting, upkeep, threads; Shared
                   ├─ engine/    what the engine has stored, decides and is told; knows no attempt
                   └─ intake/    what is pulled, and when; knows no attempt

The tree shows who imports whom; all of the folders stand side by side. ``typed/`` (annotations),
``telemetry`` (the seam for spans), ``settings``, ``directory`` (the worker's entry) and
``deadlines`` (the seconds of a drain's end) stand beside them. The table of who may import whom is
a test (``tests/test_house.py``), imports for types included.

The way of a task: ``intake.consume`` gets a delivery, ``execution.admission`` makes it an attempt,
``execution.fast_path`` begins and ends the ordinary one, ``execution.effects`` carries out the
table of an attempt's life (``trio_dagnats/attempt/life.py``) for all others, ``handlers.adapters``
calls the user's function.

May import ``attempt``, ``transport``, ``wire`` and ``errors``. Called by the user through
:class:`~trio_dagnats.Worker`, and by the command line and the test harness.

Glossary: a *task* is a message of the engine, a *delivery* one handing out of it, an *attempt* a
delivery being worked on, a *dispatch* the task message's identity (its stream sequence). A *lease*
is the time for which a worker may speak about a delivery. A *slot* lets an attempt run. A *drain*
is the worker's orderly end, its *grace* what handlers may still take. A *durable* is a consumer on
the server that outlives its workers. The *ground* is what every room may import: ``errors``,
``logs``, ``wire``, ``transport``, the rules in ``attempt``.
"""
