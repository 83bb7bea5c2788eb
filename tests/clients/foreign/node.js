// What a user of grpc-js writes who loads a .proto at run time.
// Usage: node.js CALL ADDRESS PROTOS, where CALL is `strings` or `infer`; prints one JSON object.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [call, address, protos] = process.argv.slice(2);
const molecules = ["CCO", "c1ccccc1"];

function load(file) {
  const definition = loader.loadSync(file, { includeDirs: [protos], keepCase: true, longs: Number, defaults: true });
  return grpc.loadPackageDefinition(definition);
}

function rows(bytes, [count, width]) {
  const number = (row, column) => bytes.readFloatLE(4 * (row * width + column));
  return Array.from({ length: count }, (_, row) => Array.from({ length: width }, (_, column) => number(row, column)));
}

function answer(client, method, request, read) {
  client[method](request, { deadline: Date.now() + 60_000 }, (error, reply) => {
    if (error) throw error;
    console.log(JSON.stringify(read(reply)));
    client.close();
  });
}

const insecure = grpc.credentials.createInsecure();
if (call === "strings") {
  const { EncoderService } = load("birnn/v1/encoder.proto").birnn.v1;
  answer(new EncoderService(address, insecure), "Encode", { encoder: "smiles", sequences: molecules }, (reply) => ({
    vectors: rows(reply.embeddings, reply.shape),
    failed: reply.errors.map((error) => error.index),
  }));
} else {
  const { GRPCInferenceService } = load("birnn/openinference/inference.proto").inference;
  const raw = molecules.flatMap((text) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(Buffer.byteLength(text));
    return [length, Buffer.from(text)];
  });
  const request = {
    model_name: "smiles",
    inputs: [{ name: "text", datatype: "BYTES", shape: [molecules.length, 1] }],
    raw_input_contents: [Buffer.concat(raw)],
  };
  answer(new GRPCInferenceService(address, insecure), "ModelInfer", request, (reply) => ({
    vectors: rows(reply.raw_output_contents[0], reply.outputs[0].shape),
  }));
}
