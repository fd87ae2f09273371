"""The local engine: a pure core (run and event to run and effects) and a thin shell around it.

May import ``wire``, ``transport`` and ``errors``. For development and tests on one machine.

::

    nats-server ──history.>──► Feed ──► Lanes: one queue a run ──► Conductor ─┬─ Runs   load, save
                ──sleep.>────► Feed ──►   "                                   ├─ core   the rules
                                                                              └─ Sender effects
                ──event.>────► Feed ──► Lanes: one a subject ──► Correlator   (waiters)
                ──scheduled.>► Feed ──► Lanes: one a subject ──► Schedule
                ──api.*──────► Api

``engine`` puts these together and is all that users see. The Sender does what is no message with
``correlator``, ``slots``, ``rates`` and ``locks``; ``starts`` reads what begins a run.

State is in the server alone. What is in memory (runs that go on, waiters, slots, buckets of tokens)
is a copy, read at the start or when it is needed. That is safe because one engine serves a server:
a second one is refused at its start, and one that slipped through would fail on the first snapshot
that the other has written in between.

Words: a *lane* is the queue of one run; a *credit* is the right to be sent one more message; the
*book* is what stands beside a run's snapshot; a *cause* is the event or timer that a transition
answers; the *outbox* is what that transition has to send.
"""

from trio_dagnats.local.engine.engine import LocalEngine

__all__ = ["LocalEngine"]
