"""The command line ``trio-dagnats``: develop, serve, start and look at runs.

May import every other room but ``testing``; called by the entry point and by ``python -m`` only.
Its libraries (the extra ``cli``) are imported by :mod:`main`, so that importing the room is inert.
"""
