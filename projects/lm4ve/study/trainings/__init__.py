"""Trainings of configs as jobs: what ``lm4ve ablate`` compares.

``docs/guides/ablations.md`` describes a grid file.
"""
