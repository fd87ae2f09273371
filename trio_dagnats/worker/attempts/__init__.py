"""One attempt, all of them, and what they have at hand.

``attempt`` has :class:`Attempt` (the state of one), :class:`InFlight` (those that are not over) and
:class:`Program` (what runs for one). ``shared`` are their collaborators. ``memory`` is the note and
the signals of an attempt that needs any, ``waiting`` a wait without a slot, ``upkeep`` lease, run
watch and deadline of one that lives for a while, ``progress`` and ``threads`` what their names say,
``timers`` the two queues of times.

When a lease is lost: ``upkeep`` renews it and moves the deadline of the attempt's scope (a young
one has none yet); that deadline is what ends the attempt. What is done then stands in
``execution/farewell.py``. The rows ``LEASE_LOST`` of ``attempt/reasons.py`` and
``attempt/life.py`` say that nothing is sent, and they could not say otherwise: a farewell ends with
the lease, and an answer that would be late is never sent.

How a cancelled run is noticed, by the age of the attempt: a task that has waited or comes again
reads its run's snapshot first (``execution/triage.py``); a handler that lives is told by the
history of its run (``engine/run_watch.py``); and the snapshot is looked at now and then all the
same (``upkeep``). Which events end a run is said twice, once for whom to wake (``run_watch``), once
for what it means (``attempt/reasons.py``).

May import ``deadlines``, ``engine``, ``intake`` and ``telemetry``. Called by every room above. With
``execution/`` the only room that writes to an attempt; others call its methods.

Glossary: an attempt is *young* until it is worth watching, *live* until it has *left*, *idle* while
all of it waits without a slot, *over* when it has left; its *leftovers* are what it has to remove
from the server. ``note`` is what it leaves for the next delivery.
"""
