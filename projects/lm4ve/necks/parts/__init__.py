"""The variants of a neck, a file each: what later papers add to the paper's path.

``gate``, ``mappers`` and ``lora`` act where a neck is built: they add or replace
modules of the path. ``shuffle`` and ``branch`` act in a forward pass;
:mod:`lm4ve.necks.parts.part` says what such a part can do, and ``build_parts`` in
``lm4ve/necks/neck.py`` adds it to a neck.
"""
