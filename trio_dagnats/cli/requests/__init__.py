"""Commands that connect to a server, do one thing there, and end.

``runs`` starts runs and looks at them, ``workers`` asks who serves, ``register`` brings workflows
to the engine. ``unserved`` is a remark that they (and ``dev``) make: nobody serves this task.
They need an engine on the server, or what one has left there; none of them serves tasks. For that
there are ``cli.serve`` (``run``) and ``cli.dev``.

A command is a function from :class:`~trio_dagnats.cli.options.Setup` and its arguments to an exit
code. It opens a connection of its own, is ended by Ctrl-C through
:mod:`trio_dagnats.cli.interrupt`, and raises what goes wrong: only :mod:`trio_dagnats.cli.app`
turns errors into sentences.

May import what ``cli`` may, but neither ``cli.dev`` nor ``cli.processes``. Called by ``cli.app``;
``register_all`` by ``cli.serve`` as well, ``unserved`` by ``cli.dev``.
"""
