// The box that encodes what the user types, and what came of it.

import { MOST_EXAMPLES, examplesFor } from "./examples.js";
import { copy, draw, find, make, tell } from "./dom.js";
import { count, digits } from "./numbers.js";
import { NOTES, SAMPLES } from "./samples.js";

const MOST_TOKENS = 150;
const MOST_NEAREST = 5;
const FIRST_NUMBERS = 6;

export class Encode {
  #api;
  #refused;
  #server = null;
  #encoders = new Map();
  #tab = "Python";
  // By encoder and text, so that examples are encoded once.
  #vectors = new Map();
  #texts = {};
  #vector = null;

  // Asks through `api`; `refused(error)` hears of a token that no longer counts.
  constructor(api, refused) {
    this.#api = api;
    this.#refused = refused;
    find("encode-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#encode();
    });
    find("sequence").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      find("encode-form").requestSubmit();
    });
    find("sequence").addEventListener("input", () => this.#sample());
    find("encoder").addEventListener("change", () => this.#choose());
    find("copy").addEventListener("click", () => copy(find("sample").textContent, find("copied")));
    find("copy-vector").addEventListener("click", () => copy(JSON.stringify(this.#vector), find("copied-vector")));
    this.#tabs();
  }

  // What the server says of itself, and what it serves: descriptions by NAME@VERSION.
  serve(server, encoders) {
    this.#server = server;
    const same = [...this.#encoders.keys()].join("\n") === [...encoders.keys()].join("\n");
    this.#encoders = encoders;
    find("try").hidden = !encoders.size;
    if (same || !encoders.size) return;
    const select = find("encoder");
    const chosen = select.value;
    select.replaceChildren(...[...encoders.keys()].map((id) => make("option", { value: id }, id)));
    select.value = encoders.has(chosen) ? chosen : newest(encoders);
    this.#choose();
  }

  // Chooses an encoder, and goes to the box.
  try(id) {
    find("encoder").value = id;
    this.#choose();
    find("sequence").focus();
    find("try").scrollIntoView({ block: "start" });
  }

  get #chosen() {
    return this.#encoders.get(find("encoder").value);
  }

  // Fills the box for another encoder.
  #choose() {
    const encoder = this.#chosen;
    const takesText = !encoder.features;
    const examples = examplesFor(encoder.tokenizer);
    // A bundle's golden vectors are of ids, so no strings are to be had from them.
    tell(find("encoder-about"), !takesText ? "This encoder reads sequences of numbers, not strings: call it from Python or over gRPC."
      : examples.length ? encoder.description
      : `${encoder.description} There are no examples of what it reads: type a sequence of your own.`.trim());
    for (const id of ["sequence", "encode", "examples"]) find(id).disabled = !takesText;
    find("call").hidden = !takesText;
    const [kept, text] = this.#texts[encoder.tokenizer] ?? [examples.join("\n"), examples[0] ?? ""];
    if (this.#kind !== encoder.tokenizer) {
      if (this.#kind) this.#texts[this.#kind] = [find("examples").value, find("sequence").value];
      find("examples").value = kept;
      find("sequence").value = text;
      this.#kind = encoder.tokenizer;
    }
    this.#sample();
  }

  #kind = "";

  async #encode() {
    const encoder = this.#chosen;
    const text = find("sequence").value;
    find("encode").disabled = true;
    this.#tell("Encoding …");
    try {
      const start = performance.now();
      const [item] = await this.#embed(encoder, [text], true);
      const milliseconds = performance.now() - start;
      if (item.error) return this.#fail(`It cannot be encoded: ${item.error.message}.`);
      this.#keep(encoder, text, item.embedding);
      this.#show(encoder, item, milliseconds);
      await this.#compare(encoder, text, item.embedding);
      this.#tell(`Encoded by ${idOf(encoder)}: ${count(item.tokens.length)} tokens, ${count(item.embedding.length)} numbers.`);
    } catch (error) {
      if (error.status === undefined) throw error;
      if (error.status === 401) this.#refused(error);
      this.#fail(error.message);
    } finally {
      find("encode").disabled = false;
    }
  }

  async #embed(encoder, input, tokens = false) {
    const reply = await this.#api.json("v1/embeddings", { model: idOf(encoder), input, tokens, on_error: "null" });
    return reply.data;
  }

  #tell(text) {
    find("told").className = "muted";
    tell(find("told"), text);
  }

  #fail(text) {
    find("outcome").hidden = true;
    find("told").className = "error";
    tell(find("told"), text);
  }

  #show(encoder, item, milliseconds) {
    const vector = (this.#vector = item.embedding);
    find("outcome").hidden = false;
    tell(find("copied-vector"), "");
    const facts = {
      Tokens: count(item.tokens.length), Numbers: count(vector.length), Norm: digits(norm(vector)),
      "Round trip": `${digits(milliseconds)} ms`,
    };
    find("facts").replaceChildren(...Object.entries(facts).map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    this.#tokens(encoder, item, MOST_TOKENS);
    strip(vector);
  }

  #tokens(encoder, item, most) {
    // The tokenizers of birnn-serving keep id 1 for what they do not know.
    const unknown = (id) => id === 1 && ["smiles", "text"].includes(encoder.tokenizer);
    const shown = item.tokens.slice(0, most);
    find("tokens").replaceChildren(...shown.map(({ id, text }) =>
      make("li", unknown(id) ? { class: "unknown" } : {}, unknown(id) ? "unknown" : visible(text), make("small", {}, `${id}`))));
    const notes = ["Below each token stands its id."];
    if (item.tokens.some(({ text }) => text.includes(" "))) notes.push("␣ is a space.");
    if (item.unknown_tokens) {
      notes.unshift(item.unknown_tokens === 1 ? "The encoder does not know 1 of the tokens." : `The encoder does not know ${item.unknown_tokens} of the tokens.`);
    }
    tell(find("tokens-note"), notes.join(" "));
    const more = find("all-tokens");
    more.hidden = shown.length === item.tokens.length;
    tell(more, `Show all ${item.tokens.length} tokens`);
    more.onclick = () => {
      this.#tokens(encoder, item, Infinity);
      find("result").querySelector("h3").scrollIntoView({ block: "nearest" });
    };
  }

  // Ranks the examples by their cosine to a vector.
  async #compare(encoder, text, vector) {
    const lines = find("examples").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const examples = [...new Set(lines)].filter((line) => line !== text);
    const used = examples.slice(0, MOST_EXAMPLES);
    const missing = used.filter((line) => !this.#vectors.has(keyOf(encoder, line)));
    let failed = 0;
    if (missing.length) {
      const items = await this.#embed(encoder, missing);
      missing.forEach((line, place) => this.#keep(encoder, line, items[place].embedding));
    }
    const ranked = [];
    for (const line of used) {
      const other = this.#vectors.get(keyOf(encoder, line));
      if (other) ranked.push({ line, cosine: cosine(vector, other) });
      else failed += 1;
    }
    ranked.sort((one, other) => other.cosine - one.cosine);
    find("nearest").replaceChildren(...ranked.slice(0, MOST_NEAREST).map(({ line, cosine: value }) => {
      const bar = make("i");
      bar.style.width = `${Math.max(0, value) * 100}%`;
      return make("li", {},
        make("span", { class: "cosine" }, value.toFixed(3)), make("span", { class: "text" }, line),
        make("span", { class: "bar", "aria-hidden": "true" }, bar));
    }));
    const notes = [ranked.length
      ? "By cosine: 1 is the same direction, 0 a right angle. What near vectors have in common depends on how the encoder was trained."
      : "There are no examples for this encoder: write some into “Examples to compare with”."];
    if (failed) notes.push(`${failed} of the examples cannot be encoded.`);
    if (examples.length > used.length) notes.push(`Of ${examples.length} examples the first ${MOST_EXAMPLES} were used.`);
    tell(find("nearest-note"), notes.join(" "));
  }

  #keep(encoder, text, vector) {
    if (this.#vectors.size > 1000) this.#vectors.clear();
    this.#vectors.set(keyOf(encoder, text), vector);
  }

  #tabs() {
    const names = Object.keys(SAMPLES);
    const tabs = names.map((name) => make("button", {
      type: "button", role: "tab", id: `tab-${name.toLowerCase()}`, "aria-controls": "panel",
    }, name));
    const choose = (place) => {
      this.#tab = names[place];
      tabs.forEach((tab, other) => {
        tab.setAttribute("aria-selected", String(other === place));
        tab.tabIndex = other === place ? 0 : -1;
      });
      find("panel").setAttribute("aria-labelledby", tabs[place].id);
      this.#sample();
    };
    tabs.forEach((tab, place) => {
      tab.addEventListener("click", () => choose(place));
      tab.addEventListener("keydown", ({ key }) => {
        const moves = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 };
        if (!(key in moves)) return;
        const next = (moves[key] + tabs.length) % tabs.length;
        choose(next);
        tabs[next].focus();
      });
    });
    find("tabs").replaceChildren(...tabs);
    choose(0);
  }

  #sample() {
    if (!this.#server || !this.#chosen) return;
    const { name, version } = this.#chosen;
    const text = find("sequence").value || "CCO";
    tell(find("sample"), SAMPLES[this.#tab]({ encoder: name, version, text, server: this.#server }));
    tell(find("call-note"), NOTES[this.#tab](this.#server));
    tell(find("copied"), "");
  }
}

export const idOf = ({ name, version }) => `${name}@${version}`;
const keyOf = (encoder, text) => `${idOf(encoder)}\n${text}`;
const norm = (vector) => Math.hypot(...vector);

function cosine(one, other) {
  const lengths = norm(one) * norm(other);
  return lengths ? one.reduce((sum, value, place) => sum + value * other[place], 0) / lengths : 0;
}

// The version that a call without one would get, of the first name.
function newest(encoders) {
  const [[first, { name }]] = encoders;
  const versions = [...encoders].filter(([, encoder]) => encoder.name === name && !encoder.candidate);
  return versions.at(-1)?.[0] ?? first;
}

const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";

// The numbers as a row of bars around a middle line.
function strip(vector) {
  const most = Math.max(...vector.map(Math.abs)) || 1;
  const svg = find("strip");
  svg.setAttribute("viewBox", `0 0 ${vector.length} 2`);
  svg.querySelector(".bars").setAttribute("d", vector.map((value, place) =>
    `M${place + 0.5} 1V${(1 - (0.95 * value) / most).toFixed(3)}`).join(""));
  const lowest = digits(Math.min(...vector));
  const highest = digits(Math.max(...vector));
  svg.setAttribute("aria-label", `${vector.length} numbers between ${lowest} and ${highest}, in order.`);
  const first = vector.slice(0, FIRST_NUMBERS).map((value) => digits(value)).join(", ");
  tell(find("numbers"), `[${first}${vector.length > FIRST_NUMBERS ? ", …" : ""}] between ${lowest} and ${highest}`);
}
