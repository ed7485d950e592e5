/** Shows openapi.json as a list of what the server takes. */

const operations = document.getElementById("operations");

/** An element with text or children. */
function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** The schema that a reference names, or the schema itself. */
function resolved(schema, all) {
  const name = schema?.$ref?.split("/").pop();
  return name ? all[name] : schema;
}

/** A property's type and bounds in words. */
function words(schema) {
  const parts = [[schema.type ?? "any"].flat().filter((t) => t !== "null").join(" or ")];
  if (schema.enum) parts.push(`one of ${schema.enum.filter((v) => v !== null).join(", ")}`);
  if (schema.minimum !== undefined) parts.push(`from ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) parts.push(`above ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) parts.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) parts.push(`at most ${schema.maxLength} characters`);
  return parts.join(", ") + (schema.description ? `. ${schema.description}` : "");
}

function shown(path, method, operation, all) {
  const head = element("h2", element("b", method.toUpperCase()), " ", element("code", path));
  const section = element("section", head, element("p", operation.summary));
  const content = Object.entries(operation.requestBody?.content ?? {})[0];
  if (!content) return section;
  const schema = resolved(content[1].schema, all);
  const table = element("table");
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const needed = schema.required?.includes(name) ? " (needed)" : "";
    table.append(element("tr", element("th", element("code", name), needed), element("td", words(resolved(property, all)))));
  }
  section.append(element("p", element("code", content[0])), table);
  return section;
}

try {
  const answer = await fetch(new URL("openapi.json", document.baseURI));
  const text = await answer.json();
  const sections = Object.entries(text.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => shown(path, method, operation, text.components.schemas)));
  operations.replaceChildren(...sections);
} catch {
  operations.replaceChildren(element("p", "The server does not answer. Load the page again when it does."));
}
