"""Trained models as files that other programs run: ONNX, torch.export, safetensors.

:func:`export_model` traces a model, writes a file, reads it back and compares it with the
model at other batch sizes; what differs is not kept. Which tensors go in and out is said by
the task (:mod:`lm4ve.tasks.export`).
"""

from lm4ve.deployment.exporting import FORMATS, Written, export_model

__all__ = ['FORMATS', 'Written', 'export_model']
