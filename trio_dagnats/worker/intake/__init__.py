"""What is pulled, and when. No attempt is known here.

``served`` is a task type as far as pulling goes; ``source`` says what a consumer on the server has
to offer, and ``durables`` is the first kind of source. ``consume`` is the pull loop of one source:
it calls ``start(consumer, delivery)``. ``slots`` say how many attempts may run and which pulls may
promise more, ``pull_sizes`` how much is asked for at a time, ``waiting_line`` who waits for a slot.

A task type served from several consumers: another kind of ``Source``, or several of one;
``service`` makes a ``Consumer`` (and so a ``Share``) for each, all with the handler's ``Quota``.

Public to the other rooms: ``Served``, ``Slots``, ``Source``, ``Consumer``, ``Durable``. May import
none of them; only the ground. Called by ``service``, ``directory``, ``attempts``, ``execution``.

Glossary: a *share* is one consumer's part of the slots, a *quota* what all consumers of a handler
have together; a *promise* is a credit of an open pull; a *standing* promise has no slot; the
*backlog* is what the server is known to have.
"""
