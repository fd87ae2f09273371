"""``run --processes N``: worker processes that share the same durables, under one supervisor.

User code never runs in the supervisor: each process (``child``) is held by a nursery task
(``slot``), which starts it again when it dies (``rules``) and drains it when it is cancelled.

Why processes? One trio loop uses one core; durables are shared on the server anyway, so N processes
need nothing from each other. Why not let systemd start N of them? Then N logs, N restarts and N
drains are the user's to arrange.

May import what ``cli`` may. Called by ``cli.serve``.

Words: a *slot* is one of the N places, which outlives its processes; a process *serves* from its
``ready`` on; a *hopeless* end is one that every other process would come to as well.
"""
