"""What commands say: to people in words, tables and trees, to programs in JSON.

``screen`` is the only module with I/O: data goes to stdout, all that is said about it to stderr.
The others turn values into something that it can write, and are pure, so that a test needs neither
a terminal nor a server:

===========  ==============================================================
module       makes
===========  ==============================================================
`texts`      strings: times, durations, ids, values
`render`     lines, tables and trees of runs, steps, workers (with colours)
`documents`  the same as JSON documents (``--json``)
`changes`    what registering would change, both as lines and as documents
===========  ==============================================================

Times come in as nanoseconds since the epoch, and as ``None`` if they are not known; none of these
modules looks at a clock, so the caller says what "now" is.

May import ``client`` and ``wire``, for the values; no command. Called by all commands, by
``cli.options`` (the screen) and by ``cli.dev``.

Words: *data* is what was asked for; a *remark* is about it. A *document* is a dictionary that
becomes one JSON object, a *line* one row for a person.
"""
