"""``run --processes N``: worker processes that share the same durables, under one supervisor.

User code never runs in the supervisor: each process (``child``) is held by a nursery task
(``slot``), which starts it again when it dies (``rules``) and drains it when it is cancelled.

May import what ``cli`` may. Called by ``cli.serve``.
"""
