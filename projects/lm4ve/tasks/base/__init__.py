"""The protocol of a task: its declaration, and what the package asks of it.

``task`` has the declaration and the table of tasks; ``protocol`` what a task may write, with
what suits most. ``layouts``, ``describing``, ``made_up`` and ``tested`` are for protocols.
``inference`` and ``answering`` have the bases of inferencers; ``building`` builds models
and samples from a config.
"""
