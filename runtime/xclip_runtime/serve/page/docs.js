// API documentation, rendered from openapi.json; no requests to other hosts.

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

function type(schema) {
  if (!schema) return "";
  if (schema.anyOf) return schema.anyOf.map(type).join(" or ");
  return schema.type === "array" ? `${type(schema.items)} …` : schema.type ?? "";
}

function parameterRow({ name, description, schema }) {
  const standard = schema?.default ?? null;
  return element(
    "tr", {},
    element("td", {}, element("code", { textContent: name })),
    element("td", { className: "soft", textContent: type(schema) }),
    element("td", { textContent: description ?? schema?.description ?? "" }),
    element("td", { className: "soft", textContent: standard === null || standard.length === 0 ? "" : `${standard}` }),
  );
}

function route(path, method, { description, summary, parameters, requestBody, responses, security }) {
  const card = element("section", { className: "card route" });
  card.append(
    element("h2", {}, element("span", { className: "method", textContent: method.toUpperCase() }), path),
    element("p", { textContent: description ?? summary }),
  );
  if (requestBody) {
    const kinds = Object.keys(requestBody.content).join(", ");
    card.append(element("p", { className: "soft small", textContent: `Body (${kinds}): ${requestBody.description ?? ""}` }));
  }
  const listed = (parameters ?? []).filter((parameter) => parameter.in !== "header");
  if (listed.length) card.append(element("table", {}, element("tbody", {}, ...listed.map(parameterRow))));
  if (security) card.append(element("p", { className: "soft small", textContent: "API key required" }));
  const failures = Object.entries(responses ?? {}).filter(([status]) => status >= "400");
  if (failures.length) {
    const text = failures.map(([status, response]) => `${status} ${response.description}`).join(" · ");
    card.append(element("p", { className: "soft small", textContent: text }));
  }
  return card;
}

const main = document.getElementById("routes");
document.getElementById("here").textContent = new URL(".", location.href).href.replace(/\/$/, "");
try {
  const { paths } = await (await fetch("openapi.json")).json();
  main.replaceChildren(
    ...Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => route(path, method, operation))),
  );
} catch {
  main.replaceChildren(element("p", { textContent: "No response from the server: is it still running?" }));
}
