// A run that is part of a trace: its HTTP requests carry the trace context along, in the header `traceparent`, so that
// the systems it calls can tell what called them. A header that the job set itself stays what it is.
//
// Requests leave by four doors: the global `fetch`, the host's own client, `node:http`, and undici, which speaks HTTP by
// itself. The last two announce requests on Node's diagnostics channels, which were made for this; `fetch` is wrapped, and
// the host's own client tells by itself.

import { core } from "ext:core/mod.js";
import { traceRequests } from "ext:fnhost/http_client.js";

const HEADER = "traceparent";

// `begin(method, url)` gives the trace context to send along, `end(context, status)` tells of the answer; 0: there is
// none.
export function trace(begin, end) {
  traceFetch(begin, end);
  traceRequests(begin, end);
  const { subscribe } = core.createLazyLoader("node:diagnostics_channel")().default;
  traceNode(subscribe, begin, end);
  traceUndici(subscribe, begin, end);
}

function traceFetch(begin, end) {
  const { fetch: send, Headers, Proxy, Reflect, Request } = globalThis;
  globalThis.fetch = async function fetch(input, init) {
    // What is refused is refused in the same words.
    if (arguments.length === 0 || (init !== undefined && (init === null || typeof init !== "object"))) {
      return send(...arguments);
    }
    const request = input instanceof Request ? input : undefined;
    const headers = new Headers(init?.headers ?? request?.headers);
    if (headers.has(HEADER)) return send(input, init);
    const context = begin(String(init?.method ?? request?.method ?? "GET"), request?.url ?? String(input));
    headers.set(HEADER, context);
    // Not a copy: members may be getters that want their own object.
    const options = new Proxy(init ?? {}, {
      get: (target, key) => key === "headers" ? headers : Reflect.get(target, key, target),
    });
    try {
      const response = await send(input, options);
      end(context, response.status);
      return response;
    } catch (error) {
      end(context, 0);
      throw error;
    }
  };
}

function traceNode(subscribe, begin, end) {
  const contexts = new WeakMap();
  subscribe("http.client.request.created", ({ request }) => {
    // With headers given as a list the head is written already.
    if (request.headersSent || request.hasHeader(HEADER)) return;
    const context = begin(request.method, `${request.protocol}//${request.getHeader("host") ?? request.host}`);
    contexts.set(request, context);
    request.setHeader(HEADER, context);
  });
  const ended = (request, status) => {
    const context = contexts.get(request);
    if (context !== undefined) end(context, status);
  };
  subscribe("http.client.response.finish", ({ request, response }) => ended(request, response.statusCode));
  subscribe("http.client.request.error", ({ request }) => ended(request, 0));
}

function traceUndici(subscribe, begin, end) {
  const contexts = new WeakMap();
  subscribe("undici:request:create", ({ request }) => {
    if (hasHeader(request.headers)) return;
    const context = begin(request.method, String(request.origin));
    contexts.set(request, context);
    request.addHeader(HEADER, context);
  });
  const ended = (request, status) => {
    const context = contexts.get(request);
    if (context !== undefined) end(context, status);
  };
  subscribe("undici:request:headers", ({ request, response }) => ended(request, response.statusCode));
  subscribe("undici:request:error", ({ request }) => ended(request, 0));
}

// undici's headers: names and values in turns, in older versions one text with a line for each.
function hasHeader(headers) {
  if (typeof headers === "string") return /^traceparent:/im.test(headers);
  return headers.some((name, index) => index % 2 === 0 && String(name).toLowerCase() === HEADER);
}
