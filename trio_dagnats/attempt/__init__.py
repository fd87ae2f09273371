"""Rules of one attempt, without I/O: what a handler meant, what must be sent, in which order.

=================================================  =============================
question                                           answered in
=================================================  =============================
what follows when this happens in that state?      ``life``, one table
what did the handler mean by how it ended?         ``outcome``
why was it cancelled, and what follows?            ``reasons``
until when may it speak for its message?           ``lease``
what have earlier deliveries done?                 ``past``, from the history
what did they leave behind?                        ``note``; a loop: ``loop_state``
what may a loop still do?                          ``loop_bounds``
which items of a map are finished?                 ``mapped``
=================================================  =============================

Time and randomness are arguments, so tests enumerate what can happen. Nothing here knows a broker
or a task of trio. Values are frozen, but for ``Completed``, which is made for every attempt, and
the bounds of a loop.

May import ``wire``, ``errors`` and ``inspection``. Called by ``worker``, which carries out what is
decided here.

Glossary: an *attempt* is one execution as the engine counts them; a *dispatch* one task message,
known by its stream sequence; a *delivery* one handing out of that message, so a dispatch has one or
several; a *start* a stored ``step.started`` of it. *Let go* is handed back on purpose.
"""
