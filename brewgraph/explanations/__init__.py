"""What the codes of diagnostics mean: a line for each, and a page for most."""

from brewgraph.explanations.codes import CODES, FAMILIES, family
from brewgraph.explanations.pages import SETTING, Page, explained, page_of

__all__ = ["CODES", "FAMILIES", "SETTING", "Page", "explained", "family", "page_of"]
