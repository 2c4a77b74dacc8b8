"""Sphinx roles in docstrings become links on the site: an extension of Griffe (mkdocs.yml).

Docstrings follow OpenMMLab's convention, ``:class:`Name```. MkDocs would print that as
it stands.
"""

import re

import griffe

ROLE = re.compile(r':(?:py:)?(?:class|func|meth|mod|attr|data|obj|exc):`(~?)([^`<]+)`')


def link_roles(text: str, thing: griffe.Object) -> str:
    """Return a docstring in which each role is code, with a link where the site has the name."""

    def link(match: re.Match[str]) -> str:
        is_short, name = match[1], match[2].strip().lstrip('.')
        path = name
        for scope in (thing, thing.module):
            try:
                path = scope.resolve(name)
                break
            except griffe.NameResolutionError:
                if f'{scope.path}.{name}' in thing.modules_collection:
                    path = f'{scope.path}.{name}'
                    break
        label = name.rpartition('.')[2] if is_short else name
        return f'<autoref identifier="{path}" optional><code>{label}</code></autoref>'

    return ROLE.sub(link, text)


class SphinxRoles(griffe.Extension):
    """Rewrites the docstring of every object once its package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        waiting: list[griffe.Object] = [pkg]
        while waiting:
            thing = waiting.pop()
            if thing.docstring:
                thing.docstring.value = link_roles(thing.docstring.value, thing)
            waiting += [m for m in thing.members.values() if not m.is_alias]
