// Asks ajv, in strict mode, for its verdict on every example, and compares it with what the example says.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";

const schemaFolder = join(dirname(fileURLToPath(import.meta.url)), "..");
const read = (...path) => JSON.parse(readFileSync(join(schemaFolder, ...path), "utf8"));
let agreed = 0;
const disagreements = [];

for (const direction of ["incoming", "outgoing"]) {
  const validate = new Ajv2020({ strict: true, allErrors: true }).compile(read(`${direction}.schema.json`));
  for (const kind of ["valid", "invalid"]) {
    for (const name of readdirSync(join(schemaFolder, "examples", direction, kind)).sort()) {
      const example = read("examples", direction, kind, name);
      const settings = kind === "valid" ? example : example.settings;
      const expected = kind === "valid" ? true : example.schema_accepts;
      const accepted = validate(settings);
      if (accepted === expected) {
        agreed += 1;
      } else {
        const errors = (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message}`);
        disagreements.push(`${direction}/${kind}/${name}: ajv ${accepted ? "accepts" : "refuses"} it: ${errors.join("; ")}`);
      }
    }
  }
}

for (const line of disagreements) console.error(line);
console.log(`ajv, strict: ${agreed} examples as expected, ${disagreements.length} not`);
process.exit(disagreements.length === 0 ? 0 : 1);
