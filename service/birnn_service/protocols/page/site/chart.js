// A line chart over the last minutes, as SVG.

import { draw, make, tell } from "./dom.js";
import { roundUp } from "./numbers.js";

const TOP = 8;
const BOTTOM = 18;
const LEFT = 52;
const RIGHT = 6;

export class Chart {
  // Shows `series`, one or two of them: each has the key of its points, and a label. `write` writes a value of the axis,
  // which begins at 0 and reaches `least` at least; with `logarithmic` it has a line for each power of ten.
  constructor({ title, series, write, least, logarithmic, summary }) {
    Object.assign(this, { title, series, write, least, logarithmic, summary });
    this.value = make("span", { class: "value" });
    const scale = logarithmic ? make("span", { class: "muted" }, " (log scale)") : null;
    this.svg = draw("svg", { class: "chart", role: "img" });
    this.readout = make("div", { class: "readout", "aria-hidden": "true" });
    this.figure = make(
      "figure", {},
      make("figcaption", {}, make("span", { class: "what" }, title, ...(scale ? [scale] : [])), this.value),
      this.svg, this.readout,
    );
    this.svg.addEventListener("pointermove", (event) => this.#look(event.clientX));
    this.svg.addEventListener("pointerleave", () => this.#look(null));
    new ResizeObserver(() => this.points && this.show(this.points, this.now, this.span)).observe(this.svg);
  }

  // Draws points with times in seconds; the axis ends `now` and is `span` seconds long.
  show(points, now, span) {
    Object.assign(this, { points, now, span });
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width) return;
    const seen = points.filter((point) => point.at >= now - span);
    const values = seen.flatMap((point) => this.series.map(({ key }) => point[key])).filter((value) => value > 0);
    const ticks = this.#ticks(values);
    const part = this.logarithmic
      ? (value) => Math.log(Math.max(value, ticks[0]) / ticks[0]) / Math.log(ticks.at(-1) / ticks[0])
      : (value) => value / ticks.at(-1);
    this.x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (now - at) / span);
    this.y = (value) => TOP + (height - TOP - BOTTOM) * (1 - part(value));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.rule = draw("line", { class: "rule", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
    this.svg.replaceChildren(
      ...this.#grid(width, height, ticks),
      ...(this.series.length === 1 ? [draw("path", { class: "area", d: this.#area(seen, this.series[0].key) })] : []),
      ...this.series.map(({ key }, place) =>
        draw("path", { class: place ? "second" : "first", d: this.#line(seen, key) })).reverse(),
      this.rule,
    );
    const last = points.at(-1);
    this.value.replaceChildren(...this.#values(last), ...(last ? this.summary(last) : []).map((text) =>
      make("span", { class: "muted" }, ` ${text}`)));
    this.svg.setAttribute("aria-label", this.#spoken(seen, last));
    if (this.pointer !== undefined && this.pointer !== null) this.#look(this.pointer);
  }

  #values(point) {
    return this.series.flatMap(({ key, label }, place) => [
      make("i", { class: place ? "key second" : "key", "aria-hidden": "true" }),
      `${label} `, make("b", {}, point ? this.write(point[key]) : "none"), " ",
    ]);
  }

  // Where the axis has lines, ascending.
  #ticks(values) {
    if (!this.logarithmic) {
      const highest = roundUp(Math.max(this.least, ...values));
      return [0, highest / 2, highest];
    }
    const power = (value, round) => round(Math.log10(value) - 1e-9);
    const lowest = power(Math.min(this.least, ...values), Math.floor);
    const highest = Math.max(power(Math.max(this.least, ...values), Math.ceil), lowest + 1);
    return Array.from({ length: highest - lowest + 1 }, (_, place) => 10 ** (lowest + place));
  }

  #grid(width, height, ticks) {
    const lines = [];
    for (const value of ticks) {
      const y = this.y(value);
      lines.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      lines.push(draw("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, this.write(value)));
    }
    const minutes = this.span / 60;
    const label = (ago, anchor, text) =>
      lines.push(draw("text", { x: this.x(this.now - 60 * ago), y: height - 4, "text-anchor": anchor }, text));
    label(minutes, "start", `${minutes} min ago`);
    for (let ago = 1; width > 460 && ago < minutes; ago += 1) label(ago, "middle", `${ago} min ago`);
    label(0, "end", "now");
    return lines;
  }

  // A line with a gap wherever there is no value.
  #line(points, key) {
    let path = "";
    let on = false;
    for (const point of points) {
      const value = point[key];
      if (value === null || value === undefined) {
        on = false;
        continue;
      }
      const x = this.x(point.at).toFixed(1);
      // A point between gaps is a dot.
      path += `${on ? "L" : `M${x} ${this.y(value).toFixed(1)}L`}${x} ${this.y(value).toFixed(1)}`;
      on = true;
    }
    return path;
  }

  #area(points, key) {
    let path = "";
    let run = [];
    for (const point of [...points, {}]) {
      if (point[key] !== null && point[key] !== undefined) {
        run.push(point);
      } else if (run.length) {
        const floor = this.y(0).toFixed(1);
        const top = run.map((one) => `L${this.x(one.at).toFixed(1)} ${this.y(one[key]).toFixed(1)}`).join("");
        path += `M${this.x(run[0].at).toFixed(1)} ${floor}${top}L${this.x(run.at(-1).at).toFixed(1)} ${floor}Z`;
        run = [];
      }
    }
    return path;
  }

  // What the chart shows, in words.
  #spoken(points, last) {
    const parts = this.series.map(({ key, label }) => {
      const values = points.map((point) => point[key]).filter((value) => value !== null && value !== undefined);
      if (!values.length) return `${label}: no values`;
      return `${label}: now ${this.write(last[key])}, at most ${this.write(Math.max(...values))}`;
    });
    return `${this.title} over the last ${Math.round(this.span / 60)} minutes. ${parts.join("; ")}.`;
  }

  // Shows the values at a place of the pointer.
  #look(pointer) {
    this.pointer = pointer;
    if (!this.rule) return;
    const left = this.svg.getBoundingClientRect().left;
    const near = pointer === null ? null : this.points.reduce((best, point) => {
      const far = Math.abs(this.x(point.at) - (pointer - left));
      return !best || far < best.far ? { far, point } : best;
    }, null)?.point;
    if (!near || near.at < this.now - this.span) {
      this.rule.setAttribute("visibility", "hidden");
      tell(this.readout, "");
      return;
    }
    const x = this.x(near.at);
    for (const end of ["x1", "x2"]) this.rule.setAttribute(end, x);
    this.rule.setAttribute("visibility", "visible");
    const values = this.series.map(({ key, label }) => `${label} ${this.write(near[key])}`).join(", ");
    tell(this.readout, `${Math.round(this.now - near.at)} s ago: ${values}`);
  }
}
