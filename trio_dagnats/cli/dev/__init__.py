"""``dev``: a server, an engine and the user's worker, which is reloaded when its files change.

User code never runs in this process: each version of it is a child process of its own
(``child``), held by a nursery task (``process``) and replaced by ``reload``; the two talk over
``cli.child_link``. ``board`` and ``view`` show what runs do.

::

    dev (this process)
    ├─ nats-server and LocalEngine          unless --nats names others
    ├─ Reloader ── WorkerProcess ── guard ── child: imports, serves, drains    version n
    │           └─ WorkerProcess ── guard ── child: drains                     version n - 1
    └─ view ── Client.watch                 the events of all runs

May import what ``cli`` may. Called by ``cli.main``.

Words: a *version* is the user's code as it was at one import; it is *in service* while it is the
one that takes tasks, *retiring* while it drains, and *held* as long as its process lives.
"""
