"""What the engine has stored, decides and is told. No attempt is known here.

``facts`` reads runs and workflows, ``run_watch`` hears what becomes of a run (one of three ways in
which a cancelled run is noticed, see ``attempts``), ``settle`` stores an
outcome exactly once across workers, ``step_store`` keeps checkpoints, notes and entries of maps,
``signal_register`` waits for a signal. They take tasks, ids and callbacks.

Public to the other rooms: ``EngineFacts``, ``RunWatch``, ``Watched``, ``Settler``, ``Claim``,
``Verdict``, ``StepStore``, ``check_step``, ``SignalRegister``. May import none of them; only the
ground (``attempt``'s rules, ``transport``, ``wire``). Called by ``attempts``, ``execution``,
``context``.

Glossary: the *history* of a run is its stream of events; a *claim* is what a worker knows about the
history of a dispatch, a *verdict* what became of its outcome there; a *look* reads without
a trio task that waits.
"""
