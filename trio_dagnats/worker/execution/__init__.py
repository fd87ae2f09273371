"""An attempt from its delivery to its answer.

::

    admission ──> fast_path ──> (a callback: outcome stored, message answered)
                     │
                     └─ not ordinary ──> task_pool ──> triage ──> effects ──> execute ──> effects
                                         in a trio task            │ the handler border
                                                                   └─ cancelled ──> farewell

``admission`` makes an attempt of a delivery, and lets so many begin in a turn. ``fast_path`` posts
the two events of an ordinary attempt without a task. ``triage`` looks at what is no first and young
delivery. ``effects`` carries out what the table of an attempt's life says, ``messages`` are those
that do not wait, ``dead_letter`` keeps what is no task. ``execute`` calls the handler, the only
place where all that it raises is caught. ``farewell`` says what is done with an attempt that was
cancelled; what follows from each reason is one table (``trio_dagnats/attempt/reasons``).
``task_pool`` gives attempts their trio tasks.

Public to the other rooms: ``admit`` and its line, ``fast_path.begin``, ``declare``, the task pool.
May import ``attempts``, ``deadlines``, ``engine``, ``intake`` and ``telemetry``. Called by
``service``, and ``declare`` by ``context``. With ``attempts/`` the only room that writes to an
attempt.

Glossary: to *begin* is to post ``step.started``; to *settle* is to have the outcome stored; to
*hand back* is to NAK; to *declare* is a handler's own outcome, by a call.
"""
