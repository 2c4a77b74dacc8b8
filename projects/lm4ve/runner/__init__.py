"""What happens around a model while it trains: runner, configs, checkpoints, hooks, commands.

Importing this package imports nothing: blocks and tasks use its small modules.
"""
