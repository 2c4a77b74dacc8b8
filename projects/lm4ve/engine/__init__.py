"""What happens around a model while it trains: checkpoints, EMA, files, command lines.

Importing this package imports nothing: blocks and tasks use its small modules.
"""
