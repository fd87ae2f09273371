"""What a handler can do: :class:`TaskContext`, and one module for each of its powers.

To add a method: write the power as a function of an attempt in a module of its own (or in the one
that it belongs to), and the method with its docstring in ``context``. A power's state lives in the
``TaskContext`` or in an object of its own; it asks an attempt by its methods and never assigns to
it. What a power leaves on the server it registers with ``Attempt.leave_behind``.

To read something from the server: a method in ``engine``, reached through ``attempt.shared``
(``step_store`` for what belongs to a step, which raises if the server does not answer; ``facts``
for what the engine knows of runs and workflows, which never fails an attempt). A new collaborator
is a field of ``Shared`` and a line in ``Service._build``. What is one call of it needs no module.

``waits`` are pause, signal and the checkpoint that goes with them; ``steering`` is a signal that
ends a block; ``iteration`` is one turn of an agent loop; ``durable_map`` is the fan-out.

Public to the other rooms: ``TaskContext``, ``Inbox``. May import ``attempts``, ``engine``,
``execution`` (to declare an outcome) and ``typed``. Called by ``handlers`` and by the user.

Glossary: a *checkpoint* is the user's data of a step; a *signal* is a register of a run, whose last
value stands; to *commit* signals is to count them as consumed for good.
"""
