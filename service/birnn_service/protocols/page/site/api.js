// Calls to the server that this page came from, with the token that the user typed.

const KEY = "birnn-token";
const PATIENCE_MS = 30_000;

// A call that failed: the HTTP status, or 0 where there was no answer.
export class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  // The token is kept by this tab alone, and sent in a header alone: another site cannot make a browser send it.
  #token = recalled();

  get hasToken() {
    return this.#token !== "";
  }

  useToken(token) {
    this.#token = token;
    try {
      if (token) sessionStorage.setItem(KEY, token);
      else sessionStorage.removeItem(KEY);
    } catch {
      // Storage is switched off: the token lives as long as the page.
    }
  }

  // What a path below this page answers, as JSON; with a body it is posted.
  async json(path, body) {
    return (await this.#send(path, body)).json();
  }

  async text(path) {
    return (await this.#send(path)).text();
  }

  async #send(path, body) {
    const headers = {};
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let reply;
    try {
      reply = await fetch(new URL(path, here()), {
        method: body === undefined ? "GET" : "POST",
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(PATIENCE_MS),
        cache: "no-store",
      });
    } catch {
      throw new Failed(0, "The server does not answer.");
    }
    if (!reply.ok) throw new Failed(reply.status, await reason(reply));
    return reply;
  }
}

// Where the page is: behind a gateway that may be below a path.
export const here = () => new URL(".", location.href);

async function reason(reply) {
  const fallback = `The server answers with status ${reply.status}.`;
  try {
    const { error } = JSON.parse(await reply.text());
    return (typeof error === "string" ? error : error.message) || fallback;
  } catch {
    return fallback;
  }
}

function recalled() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}
