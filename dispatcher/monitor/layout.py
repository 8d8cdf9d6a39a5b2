"""Templates: ours first, then Flower's, whose navigation bar gets one tab more.

It must not know what the pages show."""

from pathlib import Path
from typing import Final

from tornado.template import Loader, Template

TEMPLATES: Final = Path(__file__).parent / "templates"
LAST_TAB: Final = (  # of Flower's navbar.html
    """{% if active_tab == 'broker' %}aria-current="page"{% end %}>Broker</a>
        </li>
"""
)
TAB: Final = """        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'jobs' %} active{% end %}"
            href="{{ reverse_url('jobs') }}"
            {% if active_tab == 'jobs' %}aria-current="page"{% end %}>Jobs</a>
        </li>
"""


class Layout(Loader):
    """A Flower whose bar reads otherwise shows no tab; the pages are there all the same."""

    def __init__(self, flowers: str) -> None:
        super().__init__(flowers)

    def _create_template(self, name: str) -> Template:
        ours = TEMPLATES / name
        if ours.is_file():
            return Template(ours.read_bytes(), name=name, loader=self)
        if name == "navbar.html":
            return Template(with_tab(Path(self.root, name).read_text("utf-8")), name, loader=self)
        return super()._create_template(name)


def with_tab(navbar: str) -> str:
    return navbar.replace(LAST_TAB, LAST_TAB + TAB, 1)
