"""A quick, honest test of blocks on a user's own encoder and data: ``lm4ve try``.

The frozen encoder runs once over the data. Small heads, with and without a block of a
language model, are then trained on its tokens.
"""
