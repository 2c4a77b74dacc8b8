"""One small module a host framework, imported only where the host is installed."""
import importlib
import importlib.util

from mmengine.logging import print_log

_HOSTS = ('mmpretrain', 'mmaction')


def connect_installed_hosts() -> None:
    """Import the host modules whose framework is installed.

    A host that is broken (a version its own checks refuse) is reported and
    passed over: the rest of lm4ve does not depend on it.
    """
    for host in _HOSTS:
        if importlib.util.find_spec(host) is None:
            continue
        try:
            importlib.import_module(f'lm4ve.hosts.{host}')
        except (ImportError, AssertionError, AttributeError) as e:
            print_log(
                f'lm4ve: {host} is installed but cannot be imported ({e}); '
                'its models are not available.',
                logger='current',
                level=30)
