"""What is pulled, and when. No attempt is known here.

``served`` is a task type as far as pulling goes, ``durables`` keep its consumer on the server in
shape, ``consume`` is the pull loop of one consumer: it calls ``start(consumer, delivery)``.
``lookout`` looks at the durables now and then, and at once when there is reason to.
``slots`` say how many attempts may run and which pulls may promise more, ``pull_sizes`` how much is
asked for at a time, ``waiting_line`` who waits for a slot.

A task type served from several consumers: ``service`` makes one ``Consumer`` (and so one ``Share``)
for each; its limit of slots is the handler's.

Public to the other rooms: ``Served``, ``Slots``, ``Share``, ``Consumer``, ``Lookout``,
``durables``. May import
none of them; only the ground. Called by ``service``, ``directory``, ``attempts``, ``execution``.

Glossary: a *share* is one consumer's part of the slots; a *promise* is a credit of an open pull; a
*standing* promise has no slot; the *backlog* is what the server is known to have.
"""
