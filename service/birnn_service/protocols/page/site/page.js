// The page: asks for the token where one is needed, lists what is served, and starts the rest.

import { Api, Failed } from "./api.js";
import { find, make, tell } from "./dom.js";
import { Encode, idOf } from "./encode.js";
import { Live } from "./live.js";
import { Loop } from "./loop.js";
import { count } from "./numbers.js";

const LIST_PAUSE_MS = 10_000;
const COLUMNS = ["Name", "Model", "Vector", "Reads", "Runs on", "State"];

const api = new Api();
const encode = new Encode(api, askForToken);
const live = new Live(api, told);
const served = new Loop(list, LIST_PAUSE_MS, told);
let listed = "";

// Asks what is served, and by what.
async function list() {
  const server = await api.json("page/server");
  if (server.tokens && !api.hasToken) throw new Failed(401, "");
  try {
    serve(server, await api.json("v2"), await api.json("v1/models"), await api.json("v2/repository/index", {}));
  } catch (error) {
    if (error.status !== 403) throw error;
    note(`There is nothing to encode with: ${error.message}.`);
    find("try").hidden = find("served").hidden = true;
  }
  find("token-section").hidden = true;
  find("forget").hidden = !api.hasToken;
  tell(find("access"), server.tokens ? "Calls carry your token." : "No token needed.");
  links(server);
  if (find("live-section").hidden) live.start();
}

function serve(server, { version }, { data }, index) {
  const encoders = new Map(data.filter(({ encoder }) => encoder).map(({ encoder }) => [idOf(encoder), encoder]));
  const others = index.filter((one) => !encoders.has(idOf(one)));
  tell(find("version"), version);
  note("");
  find("served").hidden = false;
  const told = JSON.stringify([...encoders.values(), others]);
  if (told !== listed) show([...encoders.values()], others);
  listed = told;
  encode.serve(server, encoders);
}

function note(text) {
  find("served-section").hidden = false;
  find("served-notice").hidden = !text;
  tell(find("served-notice"), text);
}

// Fills the table of what is served, and of what is there but not served.
function show(encoders, others) {
  const rows = encoders.map((encoder) => [
    [
      make("button", { type: "button", class: "quiet name", "aria-label": `Try ${idOf(encoder)}` }, idOf(encoder)),
      ...(encoder.aliases.length ? [make("small", {}, `also ${encoder.aliases.join(", ")}`)] : []),
    ],
    [called(encoder.architecture), small(`pooling ${encoder.pooling}`)],
    [`${count(encoder.dimension)} floats`, small(`${count(encoder.token_dimension)} for a token`)],
    encoder.features
      ? [`${encoder.features} features a step`, small(`up to ${count(encoder.max_length)} steps`)]
      : [encoder.tokenizer, small(`up to ${count(encoder.max_length)} tokens`)],
    [encoder.engine, small(`${encoder.precision} on ${encoder.device}`)],
    [badge(encoder.ready ? "ready" : "not ready", encoder.ready), ...(encoder.candidate ? [small("candidate")] : [])],
  ]);
  const absent = others.map(({ name, version, state, reason }) => [
    [make("span", { class: "name" }, `${name}@${version}`)], ["–"], ["–"], ["–"], ["–"],
    [badge(state.toLowerCase(), false), ...(reason ? [small(reason)] : [])],
  ]);
  const body = find("served").querySelector("tbody");
  body.replaceChildren(...[...rows, ...absent].map((cells) => make("tr", { role: "row" }, ...cells.map((cell, place) =>
    make("td", { role: "cell", "data-label": COLUMNS[place] }, ...cell)))));
  body.querySelectorAll("button").forEach((button, place) =>
    button.addEventListener("click", () => encode.try(idOf(encoders[place]))));
}

// As the field writes it: BiGRU for bigru.
const called = (architecture) => architecture.replace(/^bi(.+)/, (_, cell) => `Bi${cell.toUpperCase()}`);
const small = (text) => make("small", {}, text);
const badge = (text, good) => make("span", { class: good ? "badge good" : "badge warn" }, text);

function links({ describes }) {
  if (find("links").hasChildNodes() || !describes) return;
  find("links").append("The interface over HTTP: ", make("a", { href: "openapi.json" }, "openapi.json"));
}

// Says how the server does, after each time that it was asked.
function told(error) {
  const state = find("state");
  if (error?.status === 401) return askForToken(error);
  const away = error && error.status !== 403;
  state.className = away ? "pill bad" : "pill good";
  tell(state, !away ? "Connected" : error.status ? "The server has trouble; trying again"
    : "No answer from the server; trying again, at least every 30 s");
}

function askForToken(error) {
  const section = find("token-section");
  const first = section.hidden;
  tell(find("state"), "Token needed");
  find("state").className = "pill warn";
  // One that was refused is worth nothing.
  tell(find("token-error"), error.message && `The server says: ${error.message}.`);
  api.useToken("");
  for (const id of ["served-section", "live-section", "try"]) find(id).hidden = true;
  find("forget").hidden = true;
  tell(find("access"), "");
  section.hidden = false;
  if (first) find("token").focus();
}

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useToken(find("token").value.trim());
  find("token").value = "";
  find("live-section").hidden = true;
  served.start();
});
find("forget").addEventListener("click", () => {
  api.useToken("");
  listed = "";
  location.reload();
});
served.start();
