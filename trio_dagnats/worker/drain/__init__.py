"""The end of a worker: signals of the process, the end of the grace, what became of whom.

``interrupts`` turns SIGINT and SIGTERM into calls, ``overrun`` ends and names the attempts that
outlive the grace (and the process, with ``hard_exit``), ``ledger`` says what became of each. The
order of a drain is the nesting in ``service``; its seconds stand in ``deadlines``.

Public to the other rooms: ``Interrupts``, ``SIGNALS``, ``Overrun``, ``LedgerLine``, ``line_of``.
May import ``attempts``, ``deadlines``, ``engine`` and ``observe``; it cancels attempts by their
methods. Called by ``worker`` and ``service``, and its signals by the command line.

Glossary: the *ledger* is one line for each attempt in flight when the drain began.
"""
