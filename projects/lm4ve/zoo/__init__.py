"""Carries the configs (``.mim/``) so that other projects can inherit ``lm4ve::``."""

from pathlib import Path

#: The folder that holds ``configs`` and ``model-index.yml``.
MIM_FOLDER = Path(__file__).parent / '.mim'
