"""Who is compared: this worker, and what a user would write instead.

``python -m benchmarks.sides.NAME URL TYPE WORK TASKS CONCURRENCY SERVER_PID`` serves so many tasks
and tells at its end what it used; with 0 tasks it serves until it is killed. Each is a program of
its own that imports what it needs and no more: the start-up is compared too.
"""
