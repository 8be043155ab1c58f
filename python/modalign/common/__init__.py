"""What every room may use: checks, types, progress, and how parts of the package find each other.

    checks          arguments that are refused: a check returns, or raises an error that says what was wanted
    labels          classes, groups, splits and names of rows: one conversion for all arguments that take them
    conversion      arrays from data frames, Arrow, lists and tensors; masked, sparse and missing values are refused
    tensors         rows as finite tensors, neighbours as int64 tensors
    types           types that many signatures share
    dtypes          the floating-point dtypes, and the dtype in which sums are kept
    arithmetic      floating-point modes of the calling thread
    deterministic   sums whose bits do not depend on the number of threads
    progress        bars on a terminal, lines in a log
    interruption    a long call in another thread, which Ctrl-C ends
    threads         pools of threads, forked children, and systems that give no thread
    provenance      versions, machine, commit and command, which results record
    names           functions named as "module:function" and imported when they are used
    doors           the table of drawings, the only way from results to ``report``

Nothing here knows a loss, a metric or a file format, and nothing imports another room.
"""
