"""Tables of the report that sort by their heads."""

from collections.abc import Sequence
from html import escape


def table(
    caption: str, heads: Sequence[tuple[str, str]], rows: Sequence[str], tail: str = ""
) -> str:
    """Lay out a table.

    Args:
        caption: over it.
        heads: text and explanation of each column.
        rows: row elements, which sort by "data-value" of their cells or by their text.
        tail: row elements that stay at the end.
    """
    cells = "".join(
        f'<th scope="col" title="{escape(about)}">'
        f'<button type="button">{escape(text)}</button></th>'
        for text, about in heads
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f"{f'<tbody>{tail}</tbody>' if tail else ''}</table></div>"
    )
