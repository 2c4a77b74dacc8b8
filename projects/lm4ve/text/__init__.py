"""Texts, for the tasks that read some: their files, tokens, encoders and answers.

``annotation_files`` reads JSON and CSV, ``dataset`` is the base of data sets of texts,
``preprocessor`` tokenizes, ``pretrained_encoders`` builds encoders of ``transformers``,
``vocabulary`` is the base of heads that choose an answer, and ``structures`` has the
sample that goes from file to metric.
"""
