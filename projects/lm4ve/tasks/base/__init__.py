"""The protocol of a task: its declaration, and the hooks that it may implement.

``task`` has the declaration and the table of tasks. ``analysis``, ``export`` and
``batches`` are modules of the same names as a task's, with the default hooks;
``inference`` and ``answering`` have the bases of inferencers; ``building`` builds models
and samples from a config.
"""
