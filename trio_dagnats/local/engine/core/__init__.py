"""The engine's rules, pure: a run and an event give a run and its effects.

``transitions`` is the one entrance; it hands events to ``steps`` and ``waiting``, and lets
``ready`` find what can go now. ``state`` is a run, ``draft`` its working copy for the length of one
event, ``messages`` what an effect looks like on the wire, ``values`` what the rules read in JSON.
The rest are rules with a name.

May import ``wire`` and ``errors``: no trio, no transport, no clock, no randomness (a test forbids
it). Called by the shell around it, ``local/engine``, which stores and sends.

Glossary: an *effect* is a message to send, as a value; a *draft* collects them.

::

    event or timer ──► transitions ──► Draft ──► rules (steps, waiting, maps, planner,
    RunState ─────────►    │            ▲  │            recovery, ready, dispatch)
                           │            └──┘ change, emit, start_timer
                           ▼
                    RunState': run + book, the book holds the effects (outbox)
                           │
                    the shell saves it, then sends messages.render(effect, RunState')

Three invariants hold the crash safety of the engine together:

1. A transition is a function of its arguments. Time (``now_ns``) and randomness (``nonce``) come in
   from outside, so a rule can be tested by enumeration and never waits.
2. What has to be sent is part of the new state and is saved in the same write. There is no moment
   at which a step is marked as dispatched and nobody knows that its task is still to be sent.
3. An effect is rendered from the very state that holds it, and rendering has no clock and no
   randomness either. So the message that is sent again after a crash has the same id and bytes.
"""
