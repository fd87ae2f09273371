"""The command line ``trio-dagnats``: develop, serve, start and look at runs.

::

    main        the entry point: is the extra there?  importable without it
    app         the group of all commands; every error becomes a sentence and a code here
      new, serve, dev/, processes/, requests/     the commands, a tuple ``COMMANDS`` in each module
        options, target, exits, interrupt         what several of them need
          output/                                 how it is said

A command returns its exit code and raises what goes wrong; it prints no error itself. A command's
docstring is its help text, so what only readers of the code want stands in comments.

May import every other room but ``testing``; called by the entry point and by ``python -m`` only.
Its libraries (the extra ``cli``) are imported by :mod:`main`, so that importing the room is inert.

Words: a *target* is what ``FILE_OR_MODULE`` names; *our own* server is the one that ``dev`` starts.
"""
