// Renders both schemas with react-jsonschema-form, once for each connection protocol, and compares what stands on the page with
// what the schema says: the same fields in the same order, with their labels, help, defaults and what cannot be edited.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import rjsf from "@rjsf/core";
import { customizeValidator } from "@rjsf/validator-ajv8";
import { Ajv2020 } from "ajv/dist/2020.js";

const schemaFolder = join(dirname(fileURLToPath(import.meta.url)), "..");
const Form = rjsf.default ?? rjsf;
const validator = customizeValidator({ AjvClass: Ajv2020 });
const faults = [];
let fields = 0;

for (const direction of ["incoming", "outgoing"]) {
  const schema = JSON.parse(readFileSync(join(schemaFolder, `${direction}.schema.json`), "utf8"));
  for (const protocol of schema.properties.connection_protocol.enum) {
    const formData = { connection_protocol: protocol, authentication_type: "OAuth" };
    const page = renderToStaticMarkup(createElement(Form, { schema, validator, formData }));
    const rule = schema.allOf.find((rule) => rule.if.properties?.connection_protocol?.const === protocol);
    const hidden = rule.then.properties ?? {};
    compare(`${direction}, ${protocol}`, page, "root", schema.properties, hidden, formData);
    const { advanced } = schema.properties;
    compare(`${direction}, ${protocol}`, page, "root_advanced", advanced.properties, hidden.advanced?.properties ?? {}, {});
  }
}

for (const fault of faults) console.error(fault);
console.log(`react-jsonschema-form: ${fields} fields as the schemas say, ${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);

function compare(where, page, prefix, properties, hidden, given) {
  let last = -1;
  for (const [name, property] of Object.entries(properties)) {
    const id = `${prefix}_${name}`;
    const at = page.search(new RegExp(`(?:id|for|name)="${id}["_]`));
    const wrong = (what) => faults.push(`${where}: ${id} ${what}`);
    if (hidden[name] === false) {
      if (at >= 0) wrong("is shown and should not be");
      continue;
    }
    fields += 1;
    if (at < 0) {
      wrong("is not there");
      continue;
    }
    if (at < last) wrong("stands before the field above it");
    last = at;
    for (const text of [property.title, property.description]) {
      if (!page.includes(escape(text))) wrong(`does not show ${JSON.stringify(text)}`);
    }
    const control = page.match(new RegExp(`<(?:input|select|textarea)[^>]*id="${id}"[^>]*>`))?.[0];
    if (property.readOnly && !/ (?:readonly|disabled)=/i.test(control ?? "")) wrong("can be edited");
    const filled = given[name] ?? property.default;
    if (control?.startsWith("<input") && ["string", "number"].includes(typeof filled)) {
      if (!control.includes(` value="${escape(String(filled))}"`)) wrong(`is not filled with ${filled}`);
    }
    if (property.default === true && control && !/ checked=/.test(control)) wrong("is not checked");
  }
}

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("'", "&#x27;");
}
