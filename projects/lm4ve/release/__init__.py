"""What leaves a training: self-contained releases, and files that other programs run.

:func:`export_model` traces a model, writes a file (ONNX, torch.export, safetensors),
reads it back and compares it with the model at other batch sizes; a file that differs
is not kept.
"""
