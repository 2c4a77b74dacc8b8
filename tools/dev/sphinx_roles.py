"""Sphinx roles in docstrings become links on the site: an extension of Griffe (mkdocs.yml).

Docstrings follow OpenMMLab's convention, ``:class:`Name```, and a sentence before an
example ends with two colons. MkDocs would print both as they stand.
"""

import re

import griffe

ROLE = re.compile(r':(?:py:)?(?:class|func|meth|mod|attr|data|obj|exc):`(~?)([^`<]+)`')

#: The end of a sentence before an example. "Example::" stays: with one colon, it would be
#: the title of a section.
COLONS = re.compile(r'^(?! *[A-Z]\w*::$)(.*)::$', re.MULTILINE)


def link_roles(text: str, thing: griffe.Object) -> str:
    """Return a docstring in which each role is code, with a link where the site has the name."""

    def link(match: re.Match[str]) -> str:
        is_short = bool(match[1])
        name = match[2].strip().lstrip('.')
        label = name.rpartition('.')[2] if is_short else name
        path = _find(name, thing)
        return f'<autoref identifier="{path}" optional><code>{label}</code></autoref>'

    return ROLE.sub(link, text)


def _find(name: str, thing: griffe.Object) -> str:
    """Return the full path of a name, as it is found from a docstring's owner."""
    for scope in (thing, thing.module):
        try:
            return scope.resolve(name)
        except griffe.NameResolutionError:
            path = f'{scope.path}.{name}'
            if path in thing.modules_collection:
                return path
    return name


class SphinxRoles(griffe.Extension):
    """Rewrites the docstring of every object once its package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        waiting: list[griffe.Object] = [pkg]
        while waiting:
            thing = waiting.pop()
            if thing.docstring:
                text = COLONS.sub(r'\1:', thing.docstring.value)
                thing.docstring.value = link_roles(text, thing)
            for member in thing.members.values():
                if not member.is_alias:
                    waiting.append(member)
