"""Workflow definitions: what an engine is given to run, checked before it is sent anywhere.

The wire's names for the parts, each a pydantic model of the record of contract 10:

==================  ==============================================================
``workflow``        ``WorkflowDef``: the whole, and what its steps must be to each other
``steps``           ``StepDef``, ``StepType``: one step, and what its type needs
``configs``         what a type of step has beside its task: ``MapConfig``, ``Match``, ...
``retry``           ``RetryPolicy``: when the engine runs a failed step again
``difference``      what registering one definition would change about another
==================  ==============================================================

A *definition* is what a user writes and the engine stores; a *run* (``wire.run``) is one execution
of it. Called by ``client`` (builds, checks, compares), ``local`` (runs them), ``cli`` (shows the
difference) and ``wire.run``. The worker knows no definitions: it is sent tasks, and importing it
must not load this room, whose models take their time to build (``tests/test_house.py``).

May import ``errors``, pydantic, and of ``wire`` the texts and ids (``text``, ``ids``).
"""
