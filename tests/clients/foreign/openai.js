// What a user of OpenAI's API writes in Node. Usage: openai.js fetch|openai BASE_URL ENCODER STRING...; prints JSON.
const [how, base, encoder, ...strings] = process.argv.slice(2);

async function fetched(body) {
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch(`${base}/embeddings`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!reply.ok) throw new Error((await reply.json()).error.message);
  return reply.json();
}

async function main() {
  let create = fetched;
  if (how === "openai") {
    const { OpenAI } = require("openai");
    const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
    create = (body) => client.embeddings.create(body);
  }
  const reply = await create({ model: encoder, input: strings });
  const error = await create({ model: encoder, input: "what is this?" }).catch((error) => error.message);
  console.log(JSON.stringify({ vectors: reply.data.map((item) => item.embedding), error }));
}

main();
