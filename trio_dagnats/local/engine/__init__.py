"""The local engine: a pure core (run and event to run and effects) and a thin shell around it.

May import ``wire``, ``transport`` and ``errors``. For development and tests on one machine.
"""

from trio_dagnats.local.engine.engine import LocalEngine

__all__ = ["LocalEngine"]
