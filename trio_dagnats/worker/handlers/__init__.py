"""From a user's function to a :class:`Handler`: what it serves, and what runs for each task.

``register`` makes handlers of functions and options, ``adapters`` says how a function is called
(raw, typed or agent loop; async or in a thread), ``handler`` keeps what was registered. Nothing
here is written to once the worker runs.

Public to the other rooms: ``Handler``, ``Registry``, ``register``, ``HandleOptions``, ``Continue``.
May import ``attempts``, ``context``, ``intake`` and ``typed``. Called by ``worker`` and
``service``.

Glossary: a *handler* is a pair, ``Served`` (all that pulling its tasks needs) and ``Program`` (all
that running one needs); an *adapter* turns a function into the calls of a program.
"""
