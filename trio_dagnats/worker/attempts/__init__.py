"""One attempt, all of them, and what they have at hand.

``attempt`` has :class:`Attempt` (the state of one), :class:`InFlight` (those that are not over) and
:class:`Program` (what runs for one). ``shared`` are their collaborators. ``memory`` is the note and
the signals of an attempt that needs any, ``waiting`` a wait without a slot, ``upkeep`` lease, run
watch and deadline of one that lives for a while, ``progress`` and ``threads`` what their names say,
``timers`` the two queues of times.

When a lease is lost: ``upkeep`` renews it and moves the deadline of the attempt's scope; that
deadline is what ends the attempt, ``execution.farewell`` what is done then, by the row
``LEASE_LOST`` of ``trio_dagnats/attempt/reasons`` and of ``trio_dagnats/attempt/life``.

May import ``deadlines``, ``engine``, ``intake`` and ``telemetry``. Called by every room above. With
``execution/`` the only room that writes to an attempt; others call its methods.

Glossary: an attempt is *young* until it is worth watching, *live* until it has *left*, *idle* while
all of it waits without a slot, *over* when it has left; its *leftovers* are what it has to remove
from the server. ``note`` is what it leaves for the next delivery.
"""
