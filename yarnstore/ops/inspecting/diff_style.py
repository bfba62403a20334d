"""The style sheet of the diff's page.

The ramp is of one hue, from near the page's own shade to far from it, so that more change stands out in
light and in dark; tensors that are the same recede.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--page:#f6f5f2;--card:#fff;--text:#1f2125;--muted:#6c6f76;--rule:#e6e4df;--accent:#b4551b;
--same:#e9e8e4;--added:#3f8fc4;--odd:#b9aed0;--removed:#a33a4a;--moved:#4f8a68;
--c0:#fdeacd;--c1:#fbd3a0;--c2:#f6b571;--c3:#ec9146;--c4:#d66b26;--c5:#a94714;--c6:#6f290a;
--low:#4a2a10;--high:#fff}
@media (prefers-color-scheme:dark){:root{--page:#131416;--card:#1b1d20;--text:#e9e8e5;--muted:#999ca3;
--rule:#2d3034;--accent:#f0a05a;--same:#282b30;--added:#4a9bd0;--odd:#6f6390;--removed:#e07a88;
--moved:#7fbf9b;--c0:#452d1a;--c1:#5c3a1e;--c2:#834d1f;--c3:#b16625;--c4:#dc8436;--c5:#f5ab62;--c6:#ffdcae;
--low:#f3dfc8;--high:#2a1605}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:40px 24px 64px}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
.over{margin:0;color:var(--accent);font-weight:600;letter-spacing:.04em}
h1{margin:2px 0 24px;font-size:30px;line-height:1.2;font-weight:650;overflow-wrap:anywhere}
h1 span{color:var(--muted);font-weight:400}
h2{margin:0 0 14px;font-size:18px;font-weight:650}
h3{margin:26px 0 10px;font-size:13px;font-weight:600;color:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin-bottom:14px}
.tile,.card{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tile{padding:16px 18px}
.tile b{font-size:27px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.tile p{margin:2px 0 6px}
.tile small,td small{color:var(--muted)}
.tile.warn{border-color:var(--removed)}.tile.warn b{color:var(--removed)}
.card{padding:22px 24px;margin-bottom:14px}
svg{display:block;width:100%;height:auto}
.picture{overflow-x:auto}.picture svg{min-width:820px}
.picture svg text{font:11.5px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
svg .label{fill:var(--text);text-anchor:end}
svg .axis{fill:var(--muted);text-anchor:middle}
svg text.in{text-anchor:middle;pointer-events:none;font-size:11px}
rect{rx:2px}
rect:hover{stroke:var(--text);stroke-width:1.5}
.same{fill:var(--same);background:var(--same)}
.added{fill:var(--added);background:var(--added)}
.odd{fill:var(--odd);background:var(--odd)}
.c0{fill:var(--c0);background:var(--c0)}.c1{fill:var(--c1);background:var(--c1)}
.c2{fill:var(--c2);background:var(--c2)}.c3{fill:var(--c3);background:var(--c3)}
.c4{fill:var(--c4);background:var(--c4)}.c5{fill:var(--c5);background:var(--c5)}
.c6{fill:var(--c6);background:var(--c6)}
text.in.c0,text.in.c1,text.in.c2,text.in.c3{fill:var(--low)}
text.in.c4,text.in.c5,text.in.c6,text.in.added{fill:var(--high)}
.legend{display:flex;flex-wrap:wrap;gap:8px 28px;align-items:center;color:var(--muted);font-size:13px}
.legend p{margin:0;flex-basis:100%}
.legend i{display:inline-block;height:14px}
.ramp{display:flex;align-items:flex-start;padding-bottom:20px}
.ramp i{width:52px}.ramp i:first-child{border-radius:3px 0 0 3px}.ramp i:last-child{border-radius:0 3px 3px 0}
.ramp span{display:flex;justify-content:center;width:0;position:relative;top:16px;white-space:nowrap;
font-size:11.5px;font-variant-numeric:tabular-nums}
.keys{display:flex;gap:18px;padding-bottom:20px}
.key{display:inline-flex;gap:7px;align-items:center}.key i{width:14px;border-radius:3px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--muted);font-size:12.5px;white-space:nowrap}
th em{font-style:normal;color:var(--accent)}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--rule);vertical-align:top}
tr:last-child td{border-bottom:0}
td:not(:first-child){white-space:nowrap}
td:first-child{min-width:200px}
td small{display:block}
.mark{background:none;font-size:12.5px;color:var(--muted)}
.mark.changed{color:var(--accent)}.mark.added{color:var(--added)}.mark.removed{color:var(--removed)}
.mark.moved{color:var(--moved)}
.bar{display:inline-block;width:64px;height:7px;margin-right:6px;border-radius:4px;background:var(--same);
overflow:hidden;vertical-align:1px}
.bar i{display:block;height:100%;background:var(--c4)}
.note,footer{color:var(--muted);font-size:13px}
footer{padding:10px 24px}footer p{margin:6px 0}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
"""
