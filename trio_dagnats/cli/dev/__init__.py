"""``dev``: a server, an engine and the user's worker, which is reloaded when its files change.

User code never runs in this process: each version of it is a child process of its own
(``child``), held by a nursery task (``process``) and replaced by ``reload``; the two talk over
``cli.child_link``. ``board`` and ``view`` show what runs do.

May import what ``cli`` may. Called by ``cli.main``.
"""
