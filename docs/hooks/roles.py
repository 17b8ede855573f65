"""Docstrings for the site: Sphinx's roles, as the sources have them, become links where the target has a page."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")


def linked(text: str) -> str:
    """``:class:`~package.Name``` -> ``Name``, a link where the site describes it."""

    def link(match: re.Match[str]) -> str:
        short, target = match.groups()
        shown = target.rpartition(".")[2] if short else target
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'

    return ROLE.sub(link, text)


def plain(text: str) -> str:
    """The same without links, for text outside of the reference."""
    return ROLE.sub(lambda match: f"`{match[2].rpartition('.')[2]}`", text).replace("``", "`")


class Roles(griffe.Extension):
    """Rewrites the roles in every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """An object was read: its docstring is complete."""
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value)
