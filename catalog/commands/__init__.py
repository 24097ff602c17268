"""One module for each command of ``style-catalog``; :mod:`catalog.__main__` loads the one that is asked for.

Each has ``add_arguments(parser)`` and ``run(catalog, options) -> int | None``, which returns an exit code where it is
not 0. What is raised is turned into an exit code by the caller (:func:`catalog.__main__.main`). Modules import nothing
at the top that their ``--help`` does not need.
"""
