"""Import of the tools, which are scripts and no modules of the package."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'tools/model_converters'


def run_converter(name: str, *args) -> None:
    """Run ``main`` of a converter as the command line does."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(a) for a in args])
