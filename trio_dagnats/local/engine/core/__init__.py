"""The engine's rules, pure: a run and an event give a run and its effects.

``transitions`` is the one entrance; it hands events to ``steps`` and ``waiting``, and lets
``ready`` find what can go now. ``state`` is a run, ``draft`` its working copy for the length of one
event, ``messages`` what an effect looks like on the wire, ``values`` what the rules read in JSON.
The rest are rules with a name.

May import ``wire`` and ``errors``: no trio, no transport, no clock, no randomness (a test forbids
it). Called by the shell around it, ``local/engine``, which stores and sends.

Glossary: an *effect* is a message to send, as a value; a *draft* collects them.
"""
