// node check.mjs FILE: reads a JSON array of custom resources, and prints what their schemas say against each, as JSON.
// A schema takes fields that it does not know, as Kubernetes does before it drops them. So what is checked is wrapped, and
// fields that the schema never asked for are named, too.
import { readFileSync } from "node:fs";

const PACKAGES = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  for (const key of Object.keys(value)) unread.add(`${path}/${key}`);
  return new Proxy(value, {
    get(target, key) {
      if (!Object.hasOwn(target, key)) return Reflect.get(target, key);
      unread.delete(`${path}/${key}`);
      return watched(target[key], `${path}/${key}`, unread);
    },
  });
}

async function faults(manifest) {
  const [group, version] = manifest.apiVersion.split("/");
  const models = await import(`@kubernetes-models/${PACKAGES[group]}/${group}/${version}`);
  const unread = new Set();
  const model = new models[manifest.kind](manifest);
  model.spec = watched(manifest.spec, "/spec", unread);
  try {
    model.validate();
  } catch (error) {
    return [error.message];
  }
  return [...unread].map((path) => `${path} is not known`);
}

const found = [];
for (const manifest of JSON.parse(readFileSync(process.argv[2], "utf-8"))) found.push(await faults(manifest));
console.log(JSON.stringify(found));
