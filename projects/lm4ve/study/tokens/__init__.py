"""Frozen encoders, and their tokens over labelled data in a file."""
