// The call that the page makes, as others write it.

import { here } from "./api.js";

// Each takes a call: encoder, version, text, and what the server says of itself.
export const SAMPLES = {
  Python: ({ encoder, version, text, server }) => {
    const options = [JSON.stringify(grpcAddress(server))];
    if (server.tls) options.push(server.client_certificates ? 'tls=birnn.Tls(cert="me.pem", key="me.key")' : "tls=birnn.Tls()");
    if (server.tokens) options.push('token=os.environ["BIRNN_TOKEN"]');
    return [
      ...(server.tokens ? ["import os", ""] : []),
      "import birnn", "",
      `sequences = [${python(text)}]`,
      `with birnn.Client(${options.join(", ")}) as client:`,
      `    vectors = client.encode(sequences, encoder=${python(encoder)}, version=${python(version)})`,
      "print(vectors.shape, vectors[0, :4])",
    ].join("\n");
  },
  curl: ({ encoder, version, text, server }) => [
    `curl ${quoted(new URL("v1/embeddings", here()).href)} \\`,
    ...(server.client_certificates ? ["  --cert me.pem --key me.key \\"] : []),
    ...(server.tokens ? ['  -H "Authorization: Bearer $BIRNN_TOKEN" \\'] : []),
    "  -H 'Content-Type: application/json' \\",
    `  -d ${quoted(JSON.stringify({ model: `${encoder}@${version}`, input: [text] }))}`,
  ].join("\n"),
  grpcurl: ({ encoder, version, text, server }) => [
    `grpcurl ${server.tls ? "" : "-plaintext "}\\`,
    ...(server.client_certificates ? ["  -cert me.pem -key me.key \\"] : []),
    ...(server.describes ? [] : ["  -import-path protos -proto birnn/v1/encoder.proto \\"]),
    ...(server.tokens ? ['  -H "authorization: Bearer $BIRNN_TOKEN" \\'] : []),
    `  -d ${quoted(JSON.stringify({ encoder, version, sequences: [base64(text)] }))} \\`,
    `  ${grpcAddress(server)} birnn.v1.EncoderService/Encode`,
  ].join("\n"),
};

export const NOTES = {
  Python: () => "pip install birnn-serving",
  curl: () => "Add \"tokens\": true to the request to see the tokens, too.",
  grpcurl: ({ describes }) => (describes
    ? "Sequences and vectors are base64 in JSON: here the UTF-8 of the sequence."
    : "This server does not describe itself, so grpcurl needs the folder protos of birnn-serving."),
};

const grpcAddress = (server) => `${location.hostname}:${server.grpc_port}`;

// JSON's strings are Python's, too.
const python = (text) => JSON.stringify(text);

// A word for a POSIX shell.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
