"""A flame graph as one SVG file that needs nothing else: no network, no server, no other file.

PyPI has no kept-up renderer of folded stacks (pyflamegraph wraps a Perl script of 2015, the others draw their own
profiler's data or a terminal); speedscope is an application of its own, and opens the folded stacks beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from kvbench.profile.chrome_trace import Stacks

__all__ = ["render_flame_graph"]

_ROW = 18  # pixels, as all below
_HEAD = 78
_LEAST_SHARE = 0.0005  # of all time: a narrower box would be less than a pixel wide

_STYLE = """
svg{font:12px ui-sans-serif,system-ui,sans-serif;background:#fff}
text{fill:#1a1a1a;pointer-events:none;white-space:pre}
.head{font-size:16px;font-weight:600}.note{fill:#555}
.f{cursor:pointer}.f rect{stroke:#fff;stroke-width:.7}.f:hover rect{stroke:#000}
.all rect,tspan.all{fill:#d9d9d9}.kind rect,tspan.kind{fill:#f2a65a}.ours rect,tspan.ours{fill:#ffd28f}
.python rect,tspan.python{fill:#e6e0cf}
.torch rect,tspan.torch{fill:#9fc5e8}
@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#f0f0f0}.note{fill:#aaa}.f rect{stroke:#16181c}
.f:hover rect{stroke:#fff}.all rect,tspan.all{fill:#3d4148}.kind rect,tspan.kind{fill:#9a5413}
.ours rect,tspan.ours{fill:#7a5a1e}.python rect,tspan.python{fill:#46443a}
.torch rect,tspan.torch{fill:#2c5577}}
"""

# A click makes a frame as wide as the picture: the frames around it fill their rows, the others beside it are hidden.
_SCRIPT = """
const frames=[...document.querySelectorAll('.f')];
const at=f=>[+f.dataset.x,+f.dataset.w];
for(const f of frames)f.addEventListener('click',()=>{
 const [x,w]=at(f);
 for(const g of frames){
  const [gx,gw]=at(g),from=Math.max(gx,x),to=Math.min(gx+gw,x+w);
  g.style.display=to-from>1e-9?'':'none';
  g.setAttribute('x',100*(from-x)/w+'%');
  g.setAttribute('width',Math.max(0,100*(to-from)/w)+'%');
 }
});
"""
_LEGEND = "".join(
    f'<tspan class="{kind}">\u25a0</tspan><tspan dx="4">{label}  </tspan>'
    for kind, label in {
        "kind": "operation of the cache",
        "ours": "kvcache",
        "python": "other Python",
        "torch": "torch",
    }.items()
)


@dataclass
class _Node:
    name: str
    kind: str
    time: int = 0  # nanoseconds, callees included
    children: dict[str, _Node] = field(default_factory=dict)


def render_flame_graph(stacks: Stacks, title: str, note: str) -> str:
    """The picture: callers above callees, as wide as the time they took, the longest on the left.

    Hovering shows a frame's name, time and share; a click widens it, and one on the topmost shows all again. Works in
    light and dark and at any width. Frames of less than a two-thousandth of the time are left out.

    Args:
        stacks: nanoseconds by stack, outermost frame first.
        title: first line of the picture.
        note: second line.
    """
    root = _tree(stacks)
    frames = list(_frames(root, 0.0, 0, root.time))
    depth = 1 + max((level for level, _ in frames), default=0)
    height = _HEAD + depth * _ROW + 8
    shapes = "\n".join(shape for _, shape in frames) or f'<text x="8" y="{_HEAD + 14}">no time was spent</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<text class="head" x="8" y="22">{escape(title)}</text>\n'
        f'<text class="note" x="8" y="40">{escape(note)}</text>\n'
        f'<text class="note" x="8" y="55">Click a frame to widen it, the topmost to go back.</text>\n'
        f'<text class="note" x="8" y="70">{_LEGEND}</text>\n'
        f"{shapes}\n<script><![CDATA[{_SCRIPT}]]></script>\n</svg>\n"
    )


def _tree(stacks: Stacks) -> _Node:
    root = _Node("all", "all")
    for stack, time in stacks.items():
        root.time += time
        node = root
        for level, name in enumerate(stack):
            node = node.children.setdefault(name, _Node(name, _kind(name, level)))
            node.time += time
    return root


def _kind(name: str, level: int) -> str:
    """The colour class of a frame."""
    if level == 0:
        return "kind"
    if "::" in name.partition(" ")[0]:
        return "torch"
    return "ours" if "(kvcache/" in name else "python"


def _frames(node: _Node, x: float, level: int, whole: int) -> Iterator[tuple[int, str]]:
    """Each frame's level and shape; ``x`` is its left edge as a share of the whole."""
    share = node.time / whole if whole else 0.0
    if share < _LEAST_SHARE:
        return
    name = escape(node.name)
    yield (
        level,
        f'<svg class="f {node.kind}" data-x="{x:.6f}" data-w="{share:.6f}" x="{100 * x:.4f}%" '
        f'y="{_HEAD + level * _ROW}" width="{100 * share:.4f}%" height="{_ROW}">'
        f"<title>{name}: {node.time / 1e6:,.3f} ms, {100 * share:.1f} %</title>"
        f'<rect width="100%" height="100%"/><text x="3" y="13">{name}</text></svg>',
    )
    for child in sorted(node.children.values(), key=lambda each: (-each.time, each.name)):
        yield from _frames(child, x, level + 1, whole)
        x += child.time / whole
