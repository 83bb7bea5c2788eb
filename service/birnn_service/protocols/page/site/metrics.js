// From /metrics to points of charts: what happened between two scrapes, by encoder.

const HISTOGRAMS = ["request_seconds", "queue_seconds", "batch_sequences"];
const COUNTERS = ["requests_total", "sequences_total", "cache_hits_total", "shared_sequences_total"];
const GAUGES = ["queue_sequences"];
const LINE = /^birnn_(\w+?)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// The samples of Prometheus' text whose names begin with birnn_: name without that, labels, value.
export function* samples(text) {
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, character) => (character === "n" ? "\n" : character));
    }
    yield [match[1], labels, Number(match[3].replace("Inf", "Infinity"))];
  }
}

// What one scrape says, at a time in seconds: for each encoder its counters, gauges and the cumulative buckets of its
// histograms. Whatever other labels there are is summed up.
export function read(text, at) {
  const encoders = new Map();
  for (const [name, labels, value] of samples(text)) {
    // Calls that are about no encoder, such as those of this page, are not shown.
    if (!labels.encoder) continue;
    let found = encoders.get(labels.encoder);
    if (!found) {
      found = { numbers: new Map(), buckets: Object.fromEntries(HISTOGRAMS.map((key) => [key, new Map()])) };
      encoders.set(labels.encoder, found);
    }
    const histogram = HISTOGRAMS.find((key) => name.startsWith(key));
    if (histogram && name === `${histogram}_bucket`) {
      add(found.buckets[histogram], Number(labels.le.replace("Inf", "Infinity")), value);
    } else if (histogram || COUNTERS.includes(name) || GAUGES.includes(name)) {
      add(found.numbers, name, value);
      if (name === "requests_total" && labels.code !== "OK") add(found.numbers, "failed", value);
    }
  }
  return { at, encoders };
}

function add(sums, key, value) {
  sums.set(key, (sums.get(key) ?? 0) + value);
}

// What happened between two scrapes: seconds between them, growth of counters, latest gauges, growth of buckets.
export class Change {
  #before;
  #after;
  #chosen;

  // With the name of an encoder, or "" for all of them.
  constructor(before, after, encoder) {
    this.#before = before.encoders;
    this.#after = after.encoders;
    this.#chosen = [...after.encoders.keys()].filter((name) => !encoder || name === encoder);
    this.seconds = after.at - before.at;
  }

  grown(name) {
    return this.#sum((name_) => number(this.#after, name_, name) - number(this.#before, name_, name));
  }

  now(name) {
    return this.#sum((name_) => number(this.#after, name_, name));
  }

  // A quantile, as Prometheus' histogram_quantile estimates it; null where nothing was counted.
  quantile(histogram, share) {
    const grown = new Map();
    for (const encoder of this.#chosen) {
      const before = this.#before.get(encoder)?.buckets[histogram];
      for (const [edge, count] of this.#after.get(encoder).buckets[histogram]) {
        add(grown, edge, count - (before?.get(edge) ?? 0));
      }
    }
    return quantile([...grown].sort(([a], [b]) => a - b), share);
  }

  #sum(value) {
    return this.#chosen.reduce((sum, name) => sum + value(name), 0);
  }
}

function number(encoders, encoder, name) {
  return encoders.get(encoder)?.numbers.get(name) ?? 0;
}

// The quantile of cumulative buckets, pairs of upper edge and count in ascending order.
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  const rank = share * total;
  const place = buckets.findIndex(([, count]) => count >= rank);
  const [edge, count] = buckets[place];
  const [lower, below] = place ? buckets[place - 1] : [0, 0];
  if (edge === Infinity) return lower;
  return count === below ? edge : lower + ((edge - lower) * (rank - below)) / (count - below);
}

// The scrapes of the last minutes, and the points of charts that follow from them.
export class History {
  #scrapes = [];

  // Keeps `span` seconds; each point is about the last `window` seconds before it.
  constructor(span, window) {
    this.span = span;
    this.window = window;
  }

  get encoders() {
    return [...(this.#scrapes.at(-1)?.encoders.keys() ?? [])].sort();
  }

  add(scrape) {
    const last = this.#scrapes.at(-1);
    // Counters never fall, but those of a server that was started anew.
    if (last && new Change(last, scrape, "").grown("requests_total") < 0) this.#scrapes = [];
    this.#scrapes.push(scrape);
    while (this.#scrapes[0].at < scrape.at - this.span - this.window) this.#scrapes.shift();
  }

  // The points of one encoder, or of all of them; each is worked out once.
  points(encoder) {
    return this.#scrapes.slice(1).map((scrape, place) => {
      if (scrape.shown?.encoder !== encoder) scrape.shown = { encoder, point: this.#point(place + 1, encoder) };
      return scrape.shown.point;
    });
  }

  #point(place, encoder) {
    const after = this.#scrapes[place];
    // After a pause, such as that of a hidden tab, there is nothing to say of the time before.
    const pause = (one) => this.#scrapes[one].at - this.#scrapes[one - 1].at > 2 * this.window;
    if (pause(place)) return { at: after.at };
    let first = place - 1;
    while (first > 0 && this.#scrapes[first].at > after.at - this.window && !pause(first)) first -= 1;
    return point(after.at, new Change(this.#scrapes[first], after, encoder));
  }
}

function point(at, change) {
  const rate = (name) => change.grown(name) / change.seconds;
  const batches = change.grown("batch_sequences_count");
  return {
    at,
    p50: change.quantile("request_seconds", 0.5),
    p99: change.quantile("request_seconds", 0.99),
    sequences: rate("sequences_total") + rate("cache_hits_total") + rate("shared_sequences_total"),
    calls: rate("requests_total"),
    failed: rate("failed"),
    wait50: change.quantile("queue_seconds", 0.5),
    wait99: change.quantile("queue_seconds", 0.99),
    waiting: change.now("queue_sequences"),
    batches: batches / change.seconds,
    batch: batches > 0 ? change.grown("batch_sequences_sum") / batches : null,
  };
}
