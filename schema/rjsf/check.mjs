// Renders both schemas with react-jsonschema-form, once for each connection protocol (and for SMTP and SMTPS each), and compares
// what stands on the page with what the schema says: the same fields in the same order, each with its own label and help, its
// default, what cannot be edited, the port that belongs to the protocol, and no secret in readable letters.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import rjsf from "@rjsf/core";
import { customizeValidator } from "@rjsf/validator-ajv8";
import { Ajv2020 } from "ajv/dist/2020.js";

const PORTS = { IMAPS: "993", SMTP: "587", SMTPS: "465" };
const SECRET = "canary-secret";
const schemaFolder = join(dirname(fileURLToPath(import.meta.url)), "..");
const Form = rjsf.default ?? rjsf;
const validator = customizeValidator({ AjvClass: Ajv2020 });
const faults = [];
let fields = 0;

for (const direction of ["incoming", "outgoing"]) {
  const schema = JSON.parse(readFileSync(join(schemaFolder, `${direction}.schema.json`), "utf8"));
  const uiSchema = rules(schema);
  for (const connection_protocol of schema.properties.connection_protocol.enum) {
    const rule = schema.allOf.find((rule) => rule.if.properties?.connection_protocol?.const === connection_protocol);
    const hidden = rule.then.properties ?? {};
    const protocols = hidden.protocol === false ? [undefined] : schema.properties.protocol.enum;
    for (const protocol of protocols) {
      const formData = { connection_protocol, ...(protocol && { protocol }), client_secret: SECRET };
      const page = renderToStaticMarkup(createElement(Form, { schema, uiSchema, validator, formData }));
      const where = [direction, connection_protocol, protocol].filter(Boolean).join(", ");
      compare(where, page, "root", schema.properties, hidden, formData);
      const port = attribute(control(page, "root_port"), "value");
      if (port !== PORTS[protocol]) faults.push(`${where}: the port is ${port}, not ${PORTS[protocol]}`);
    }
  }
}

for (const fault of faults) console.error(fault);
console.log(`react-jsonschema-form: ${fields} fields as the schemas say, ${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);

// The one rule that a host adds, because the library leaves `writeOnly` to it: what is secret is typed as a password.
function rules(field) {
  const ui = field.writeOnly ? { "ui:options": { inputType: "password" } } : {};
  if (field.writeOnly && field.anyOf) ui.anyOf = field.anyOf.map((shape) => rules({ ...shape, writeOnly: true }));
  for (const [name, inner] of Object.entries(field.properties ?? {})) ui[name] = rules(inner);
  return ui;
}

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
    if (!labels(page, id).includes(escape(property.title))) wrong(`has the label ${labels(page, id)}, not ${property.title}`);
    const help = page.match(new RegExp(` id="${id}__description"[^>]*>([^<]*)<`))?.[1];
    if (help !== escape(property.description)) wrong(`has the help ${help}`);
    if (property.properties) {
      compare(where, page, id, property.properties, hidden[name]?.properties ?? {}, given[name] ?? {});
      continue;
    }
    const tag = control(page, id);
    if (property.readOnly && !/ (?:readonly|disabled)=/i.test(tag)) wrong("can be edited");
    if (property.writeOnly && attribute(tag, "type") !== "password") wrong("shows a secret");
    const filled = given[name] ?? property.default;
    if (tag.startsWith("<input") && ["string", "number"].includes(typeof filled) && attribute(tag, "value") !== escape(String(filled))) {
      wrong(`is filled with ${attribute(tag, "value")}, not ${filled}`);
    }
    if (property.default === true && !/ checked=/.test(tag)) wrong("is not checked");
  }
}

// Beside a control, inside a box's own label, or above a group, a list or a choice of shapes.
function labels(page, id) {
  const own = [` for="${id}"[^>]*>`, ` id="${id}__title"[^>]*>`, `type="checkbox" id="${id}"[^>]*>(?:</?[^>]*>)*`];
  return own.flatMap((start) => page.match(new RegExp(`${start}([^<]*)<`))?.[1] ?? []);
}

function control(page, id) {
  return page.match(new RegExp(`<(?:input|select|textarea)[^>]* id="${id}"[^>]*>`))?.[0] ?? "";
}

function attribute(tag, name) {
  return tag.match(new RegExp(` ${name}="([^"]*)"`))?.[1];
}

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("'", "&#x27;");
}
