"""Heads on stored tokens as jobs: what ``lm4ve try`` compares.

The frozen encoder runs once over the data. Small heads, with and without a block of a
language model, are then trained on its tokens.
"""
