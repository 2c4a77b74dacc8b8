"""What modules log, as a list."""

import pytest


def record_logs(monkeypatch: pytest.MonkeyPatch, *modules: str) -> list[str]:
    """Return a list to which the texts go that some modules give to MMEngine's print_log."""
    texts = []
    for module in modules:
        monkeypatch.setattr(
            f'{module}.print_log', lambda text, *_, **__: texts.append(text)
        )
    return texts
