"""Annotated functions, and values of annotated types as JSON.

``signatures`` reads what a function takes and returns, ``typed_json`` reads and writes such values
and says what does not fit.

May import no other room of the worker. Called by ``handlers`` and ``context``.
"""
