// Charts in SVG: stacked areas and lines over the same steps, readable by pointer, by keyboard and as a table.

import { html, useMemo, useState } from "./vendor/preact-htm.js";
import { clock } from "./text.js";

const WIDTH = 600;
const HEIGHT = 160;

// Rounds the top of an axis up to 1, 2 or 5 times a power of ten.
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((times) => times * power >= value);
  return step * power;
}

function areaOf(lower, upper, x, y) {
  const top = upper.map((value, i) => `${x(i)},${y(value)}`);
  const bottom = lower.map((value, i) => `${x(i)},${y(value)}`).reverse();
  return `M${top.join("L")}L${bottom.join("L")}Z`;
}

function lineOf(values, x, y) {
  let path = "";
  let isOpen = false;
  values.forEach((value, i) => {
    if (value == null) { isOpen = false; return; }
    path += `${isOpen ? "L" : "M"}${x(i)},${y(value)}`;
    // A single step is still seen.
    if (!isOpen && values[i + 1] == null) path += `h2`;
    isOpen = true;
  });
  return path;
}

// `series`: [{ name, values, tone }]. `at`: seconds. `show`: a value as text.
export function Chart({ title, note, at, series, isStacked, show, unit }) {
  const [picked, setPicked] = useState(null);
  const last = at.length - 1;
  const x = (i) => (last > 0 ? (i / last) * WIDTH : 0).toFixed(1);
  const shapes = useMemo(() => {
    const sums = at.map((_, i) => series.reduce((all, one) => all + (one.values[i] || 0), 0));
    const most = isStacked ? Math.max(0, ...sums) : Math.max(0, ...series.flatMap((one) => one.values.filter((v) => v != null)));
    const top = roundUp(most);
    const y = (value) => (HEIGHT - (value / top) * HEIGHT).toFixed(1);
    let lower = at.map(() => 0);
    const paths = series.map((one) => {
      if (!isStacked) return lineOf(one.values, x, y);
      const upper = lower.map((value, i) => value + (one.values[i] || 0));
      const path = areaOf(lower, upper, x, y);
      lower = upper;
      return path;
    });
    return { top, paths, isEmpty: most === 0 };
  }, [at, series, isStacked]);

  const pick = (i) => setPicked(Math.max(0, Math.min(last, i)));
  const onPointer = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    pick(Math.round(((event.clientX - box.left) / box.width) * last));
  };
  const onKey = (event) => {
    const now = picked ?? last;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (to === undefined) { if (event.key === "Escape") setPicked(null); return; }
    event.preventDefault();
    pick(to);
  };
  const index = picked ?? last;
  const reading = at.length ? `${clock(at[index] * 1000)}: ${series.map((one) => `${one.name} ${show(one.values[index])}`).join(", ")}` : "";
  return html`
    <figure class="card chart">
      <figcaption><h3>${title}</h3>${note && html`<p class="note">${note}</p>`}</figcaption>
      <div class="plot" role="slider" tabindex="0" aria-label=${`${title}: choose a step with the arrow keys`}
        aria-valuemin="0" aria-valuemax=${Math.max(0, last)} aria-valuenow=${index} aria-valuetext=${reading}
        onKeyDown=${onKey} onPointerMove=${onPointer} onPointerLeave=${() => setPicked(null)}>
        <span class="axis top" aria-hidden="true">${show(shapes.top)}${unit ? ` ${unit}` : ""}</span>
        <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
          <path class="grid" d=${`M0,0.5H${WIDTH}M0,${HEIGHT / 2}H${WIDTH}M0,${HEIGHT - 0.5}H${WIDTH}`} />
          ${shapes.paths.map((path, i) => html`<path class=${`${isStacked ? "area" : "line"} tone-${series[i].tone}`} d=${path} />`)}
          ${picked != null && html`<path class="cursor" d=${`M${x(picked)},0V${HEIGHT}`} />`}
        </svg>
        ${shapes.isEmpty && html`<span class="empty" aria-hidden="true">nothing yet</span>`}
      </div>
      <div class="axis bottom" aria-hidden="true"><span>${at.length ? clock(at[0] * 1000) : ""}</span><span>${picked == null ? "now" : clock(at[picked] * 1000)}</span></div>
      <ul class="legend">
        ${series.map((one) => html`<li><span class=${`swatch tone-${one.tone}`} aria-hidden="true"></span>${one.name} <b>${show(one.values[index])}</b></li>`)}
      </ul>
    </figure>`;
}
