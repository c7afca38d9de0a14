// Reads a JSON array of objects from stdin and writes a JSON array of complaints, by the validators that are generated from the
// projects' own definitions. An object that no validator knows is a complaint too.
import { readFileSync } from "node:fs";

const packages = {
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "gateway.networking.k8s.io": "gateway-api",
  "cert-manager.io": "cert-manager",
};
const complaints = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = object.apiVersion.split("/");
  const name = `${object.kind}/${object.metadata.name}`;
  const kinds = await import(`@kubernetes-models/${packages[group]}/${group}/${version}`);
  if (!kinds[object.kind]) {
    complaints.push(`${name}: unknown`);
    continue;
  }
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    complaints.push(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify(complaints));
