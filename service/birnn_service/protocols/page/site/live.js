// The charts, fed from /metrics once a second.

import { Chart } from "./chart.js";
import { find, make, tell } from "./dom.js";
import { Loop } from "./loop.js";
import { History, read } from "./metrics.js";
import { count, seconds } from "./numbers.js";

const PAUSE_MS = 1000;
const SPAN_S = 300;
const FIRST_SPAN_S = 60;
const WINDOW_S = 5;
// Seconds between the rows of the table.
const ROW_S = 10;

const perSecond = (value) => (value === null || value === undefined ? "none" : `${count(value)}/s`);
const CHARTS = [
  {
    title: "Latency of calls", write: seconds, least: 1e-3, logarithmic: true,
    series: [{ key: "p50", label: "p50" }, { key: "p99", label: "p99" }],
    summary: () => [],
  },
  {
    title: "Sequences answered", write: perSecond, least: 1,
    series: [{ key: "sequences", label: "" }],
    summary: (point) => [
      `in ${count(point.calls)} calls/s`, ...(point.failed > 0 ? [`${count(point.failed)}/s failed`] : []),
    ],
  },
  {
    title: "Time in the queue", write: seconds, least: 1e-3, logarithmic: true,
    series: [{ key: "wait50", label: "p50" }, { key: "wait99", label: "p99" }],
    summary: (point) => [`${count(point.waiting ?? 0)} waiting`],
  },
  {
    title: "Sequences in a batch", write: count, least: 1,
    series: [{ key: "batch", label: "mean" }],
    summary: (point) => [`in ${count(point.batches ?? 0)} batches/s`],
  },
];
const COLUMNS = [
  ["Latency p50", "p50", seconds], ["Latency p99", "p99", seconds], ["Sequences/s", "sequences", count],
  ["Calls/s", "calls", count], ["Queue p50", "wait50", seconds], ["Queue p99", "wait99", seconds],
  ["Waiting", "waiting", count], ["Batch", "batch", count],
];

export class Live {
  #api;
  #history = new History(SPAN_S, WINDOW_S);
  #charts = CHARTS.map((chart) => new Chart(chart));
  #loop;

  // Asks through `api`, and calls `told(error)` after each time; null if it went well.
  constructor(api, told) {
    this.#api = api;
    find("charts").replaceChildren(...this.#charts.map((chart) => chart.figure));
    find("filter").addEventListener("change", () => this.#show());
    find("values").addEventListener("toggle", () => this.#show());
    this.#loop = new Loop(() => this.#scrape(), PAUSE_MS, (error) => {
      const refused = error?.status === 403;
      const notice = find("live-notice");
      notice.hidden = !refused;
      if (refused) tell(notice, `There are no charts: ${error.message}.`);
      find("charts").hidden = find("values").hidden = find("filter-label").hidden = refused;
      told(error);
    });
  }

  start() {
    find("live-section").hidden = false;
    this.#loop.start();
  }

  async #scrape() {
    const text = await this.#api.text("metrics");
    this.#history.add(read(text, performance.now() / 1000));
    this.#choices();
    this.#show();
  }

  // Keeps the choice of encoders that of the metrics.
  #choices() {
    const select = find("filter");
    const known = [...select.options].map((option) => option.value).filter(Boolean);
    const names = this.#history.encoders;
    if (known.join("\n") === names.join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...names.map((name) => make("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }

  #show() {
    const points = this.#history.points(find("filter").value);
    const now = performance.now() / 1000;
    // The first minute has the whole width.
    const span = points.length && now - points[0].at > FIRST_SPAN_S ? SPAN_S : FIRST_SPAN_S;
    for (const chart of this.#charts) chart.show(points, now, span);
    if (find("values").open) this.#table(points, now);
  }

  #table(points, now) {
    const rows = [];
    for (let ago = 0; ago <= SPAN_S; ago += ROW_S) {
      const point = points.findLast(({ at }) => at <= now - ago && at > now - ago - ROW_S);
      if (point) rows.push([`${ago} s ago`, ...COLUMNS.map(([, key, write]) => write(point[key]))]);
    }
    find("values").querySelector(".scroll").replaceChildren(
      make(
        "table", {},
        make("thead", {}, make("tr", {}, ...["Time", ...COLUMNS.map(([name]) => name)].map((name) =>
          make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((value) => make("td", {}, value))))),
      ),
    );
  }
}
