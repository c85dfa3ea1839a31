"""The stylesheet of the pages, and what it needs of a script."""

CSS = """
:root{color-scheme:light dark;--paper:#fff;--page:#f6f7f9;--ink:#1f2933;
--muted:#5a6675;--edge:#e0e4e9;--accent:#1f57b3;--code:#f3f5f7;
--shade:rgba(15,25,40,.3);--good:#1d7f4e;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--paper:#12171d;--page:#0b0f13;
--ink:#e8ebee;--muted:#9aa6b4;--edge:#2a323b;--accent:#7fb0f9;--code:#1b222a;
--shade:rgba(160,190,225,.34);--good:#57c28c;--bad:#f0747d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.6rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.12rem;margin:0 0 12px}
h3{font-size:1rem;margin:30px 0 8px}
h2+h3,.figures h3{margin-top:0}
p{margin:0 0 12px}
.sub{color:var(--muted);margin:4px 0 20px}
section{background:var(--paper);border:1px solid var(--edge);
border-radius:10px;padding:18px;margin:0 0 16px;min-width:0}
.facts{display:grid;gap:14px 28px;margin:0;
grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.facts dt{color:var(--muted);font-size:.84rem}
.facts dd{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
.facts dd small{display:block;font-size:.82rem;font-weight:400;
color:var(--muted)}
.figures{display:grid;gap:20px;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.figures>*{min-width:0}
.figures>figure:only-child,.figures>figure:last-child:nth-child(odd){
grid-column:1/-1;justify-self:center;width:100%;max-width:660px}
.cells{display:flex;flex-wrap:wrap;gap:20px 32px;align-items:flex-start;
justify-content:space-evenly}
figure{margin:0;min-width:0;max-width:100%}
figcaption{font-size:.88rem;color:var(--muted);margin:0 0 6px}
.scroll,pre{overflow-x:auto;max-width:100%;--under:var(--paper);
background:linear-gradient(to right,var(--under) 40%,transparent) 0 0,
linear-gradient(to left,var(--under) 40%,transparent) 100% 0,
linear-gradient(to right,var(--shade),transparent) 0 0,
linear-gradient(to left,var(--shade),transparent) 100% 0;
background-color:var(--under);background-repeat:no-repeat;
background-size:48px 100%,48px 100%,20px 100%,20px 100%;
background-attachment:local,local,scroll,scroll}
.scroll:focus-visible,pre:focus-visible,summary:focus-visible,
a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.figures svg{display:block;width:100%;height:auto}
.cells svg{display:block;height:auto}
.progress{height:8px;border-radius:4px;background:var(--edge);
margin:16px 0 0;overflow:hidden}
.progress i{display:block;height:100%;background:var(--accent)}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif!important}
table{border-collapse:collapse;width:100%;font-size:.92rem;
font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--edge);
white-space:nowrap;vertical-align:top}
th{color:var(--muted);font-weight:500}
td:first-child,th:first-child{padding-left:0}
td:last-child,th:last-child{padding-right:4px}
.words td:last-child,.words th:last-child,
.runs td:first-child,.runs th:first-child,
.named td:first-child,.named th:first-child{text-align:left}
.list td,.list th{text-align:left}
.runs small{color:var(--muted)}
a{color:var(--accent)}
.tight td,.tight th{padding:6px 7px}
tr.won td{font-weight:600}
pre{--under:var(--code);border-radius:8px;padding:10px 12px;margin:0 0 12px;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace}
pre.line{white-space:pre-wrap;overflow-wrap:anywhere}
pre.line span{display:inline-block;max-width:100%}
details{margin:12px 0 0}
details details{margin-left:18px}
summary{cursor:pointer;color:var(--accent);padding:2px 0}
summary small{color:var(--muted)}
details[open]>summary{margin-bottom:8px}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:.86rem;
color:var(--muted);margin:14px 0 0}
.legend i{display:inline-block;width:14px;height:14px;border-radius:4px;
border:1.5px solid;margin-right:6px;vertical-align:-2px}
.steps{display:grid;gap:4px 28px;
grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.steps p{margin:0 0 4px}
.pictures{display:flex;flex-wrap:wrap;gap:14px}
.pictures figure{width:104px}
.pictures img{display:block;width:104px;height:104px;object-fit:contain;
background:var(--code);border-radius:6px}
.pictures.pixels img{image-rendering:pixelated}
.pictures.large figure{flex:1 1 300px;width:auto;max-width:420px}
.pictures.large img{width:100%;height:auto}
.pictures figcaption{font-size:.82rem;line-height:1.3;margin:4px 0 0;
overflow-wrap:anywhere}
.pictures b{color:var(--bad);font-weight:600}
.matrix{width:auto}
.matrix td,.matrix th{text-align:center;padding:4px 8px;min-width:2.4em;
border:1px solid var(--paper)}
.matrix th[scope=row]{text-align:right;padding-left:0;color:var(--ink)}
.matrix .said{color:var(--muted);text-align:left;font-size:.84rem}
.matrix td.none{color:var(--muted)}
@media (max-width:600px){.matrix td,.matrix th{padding:4px 2px;min-width:2em}}
"""
