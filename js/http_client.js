// undici as adaptors use it, on the HTTP client of the program.
//
// Adaptors send requests with undici, and to evaluate it with the parts of the Node layer that it stands on is most of
// what a request costs. What they use of it is little: an `Agent`, perhaps with the interceptors `redirect` and
// `decompress`, and its method `request`. Here is that little, on a client in Rust. Whatever else is asked for (another
// class, an option, a body that is a stream) is undici's: it is evaluated then, and gets what was given here. So this
// need not do all that undici does, only tell what it does not.
//
// It must look like undici to those who use it, so it is written in terms of what they may have changed, as undici is.

import { core } from "ext:core/mod.js";

const { op_fnhost_http_close, op_fnhost_http_let_go, op_fnhost_http_read, op_fnhost_http_send, op_void_async_deferred } =
  core.ops;

const METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

// Methods of requests that say how long their body is even if there is none.
const WITH_BODY = ["PATCH", "POST", "PUT"];

const AGENT_OPTIONS = ["bodyTimeout", "connect", "headersTimeout", "maxRedirections"];

const REQUEST_OPTIONS = [
  "blocking",
  "body",
  "bodyTimeout",
  "headers",
  "headersTimeout",
  "idempotent",
  "maxRedirections",
  "method",
  "origin",
  "path",
  "query",
];

// What concerns the connection rather than the request.
const DELICATE_HEADERS = [
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const PATH = /^\/[!-"$-~]*$/;
const ORIGIN = /^https?:\/\/[^/?#@\\\s]+\/?$/;

const REDIRECTS = [300, 301, 302, 303, 307, 308];

// Milliseconds.
const CONNECT_TIMEOUT = 10_000;
const USUAL_TIMEOUT = 300_000;

// Bytes.
const CHUNK = 64 << 10;
const LARGE = 1 << 20;

// Encodings of a body, and who decodes them.
const DECODERS = {
  __proto__: null,
  "br": "createBrotliDecompress",
  "compress": "createInflate",
  "deflate": "createInflate",
  "gzip": "createGunzip",
  "x-compress": "createInflate",
  "x-gzip": "createGunzip",
  "zstd": "createZstdDecompress",
};
const MOST_ENCODINGS = 5;

// Where undici keeps the client of requests that name none.
const DISPATCHER = Symbol.for("undici.globalDispatcher.1");

// False where undici's own connections are looked at, as in a test run.
let isUsed = true;

export function leaveToUndici() {
  isUsed = false;
}

// Tells of requests and their answers, in a run that is part of a trace.
let tracer;

export function traceRequests(begin, end) {
  tracer = { begin, end };
}

// Set once somebody has asked for it.
let isWanted = false;

// What `require("undici")` gives. `load` evaluates undici, `loadErrors` its classes of errors, `part` gives a part of the
// Node layer, and `ask` sends a request.
export function undici(load, loadErrors, part, ask = op_fnhost_http_send) {
  isWanted = true;
  let loaded;
  const real = () => loaded ??= load();

  // -------------------------------------------------------------------------------------------------------------
  // Bodies
  // -------------------------------------------------------------------------------------------------------------

  // The bytes of a response as they come.
  class Source {
    constructor({ body, trailers, rest }, length, patience) {
      this.received = body === null ? undefined : new Uint8Array(body);
      this.given = trailers;
      this.rest = rest;
      this.length = length;
      this.patience = patience;
      this.trailers = {};
    }

    // Reads something into `buffer`. Returns how many bytes, 0 at the end.
    async #fill(buffer) {
      if (this.rest === 0) return 0;
      const read = await op_fnhost_http_read(this.rest, buffer, this.patience);
      if (typeof read !== "number") {
        this.rest = 0;
        throw errorOf(read);
      }
      if (read === 0) this.given = op_fnhost_http_let_go(this.rest);
      if (read === 0) this.rest = 0;
      return read;
    }

    #end() {
      addHeaders(this.trailers, this.given);
      this.given = [];
    }

    // What comes next, or null.
    async read() {
      if (this.received !== undefined) {
        const received = this.received.slice();
        this.received = undefined;
        if (received.length > 0) return received;
      }
      const buffer = new Uint8Array(CHUNK);
      const read = await this.#fill(buffer);
      if (read > 0) return buffer.subarray(0, read);
      this.#end();
      return null;
    }

    // All of it.
    async readAll() {
      const { received } = this;
      if (received !== undefined) {
        this.received = undefined;
        this.#end();
        return received;
      }
      let buffer = new Uint8Array(Math.min(this.length ?? CHUNK, LARGE) + 1);
      let filled = 0;
      while (true) {
        const read = await this.#fill(buffer.subarray(filled));
        if (read === 0) break;
        filled += read;
        if (filled < buffer.length) continue;
        const larger = new Uint8Array(Math.max(buffer.length * 2, Math.min(this.length ?? 0, buffer.length * 8) + 1));
        larger.set(buffer);
        buffer = larger;
      }
      this.#end();
      return buffer.subarray(0, filled);
    }

    letGo() {
      if (this.rest > 0) op_fnhost_http_let_go(this.rest);
      this.rest = 0;
    }
  }

  // The same of a body that is encoded, behind streams that decode it.
  class DecodedSource {
    constructor(source, decoders) {
      const { Readable, compose, pipeline } = part("node:stream").default;
      const encoded = new Readable({
        highWaterMark: CHUNK,
        read() {
          source.read().then((chunk) => this.push(chunk), (error) => this.destroy(error));
        },
        destroy(error, done) {
          source.letGo();
          done(error);
        },
      });
      this.decoded = decoders.length === 1 ? decoders[0] : compose(...decoders);
      pipeline(encoded, this.decoded, () => {});
      this.chunks = this.decoded[Symbol.asyncIterator]();
    }

    async read() {
      const { done, value } = await this.chunks.next();
      return done ? null : value;
    }

    async readAll() {
      const chunks = [];
      for await (const chunk of this.chunks) chunks.push(chunk);
      return part("node:buffer").Buffer.concat(chunks);
    }

    letGo() {
      this.decoded.destroy();
    }
  }

  let BodyReadable;

  function bodyOf(source, contentType, length) {
    BodyReadable ??= makeBodyClass();
    return new BodyReadable(source, contentType, length);
  }

  function makeBodyClass() {
    const { Readable, isDisturbed } = part("node:stream").default;
    const { Blob, Buffer } = part("node:buffer");

    return class BodyReadable extends Readable {
      #source;
      #contentType;
      #length;
      #isConsumed = false;
      #isAtEnd = false;
      #web;

      constructor(source, contentType, length) {
        super({ autoDestroy: true, highWaterMark: CHUNK });
        this.#source = source;
        this.#contentType = contentType;
        this.#length = length;
      }

      _read() {
        const give = (chunk) => {
          this.#isAtEnd = chunk === null;
          this.push(chunk === null ? null : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
        };
        if (!this.#isAtEnd) this.#source.read().then(give, (error) => this.destroy(error));
      }

      _destroy(error, done) {
        if (!this.#isAtEnd) {
          this.#source.letGo();
          error ??= new (loadErrors().RequestAbortedError)();
        }
        // As in undici: who has got it only now shall be able to listen for the error.
        if (this.readableDidRead || this.#isConsumed) done(error);
        else setImmediate(done, error);
      }

      async #consume(convert) {
        if (this.bodyUsed || this.#web?.locked || this.destroyed) {
          throw this.errored ?? new TypeError("unusable");
        }
        this.#isConsumed = true;
        let bytes;
        try {
          bytes = await this.#source.readAll();
        } catch (error) {
          this.on("error", () => {});
          this.destroy(error);
          throw error;
        }
        this.#isAtEnd = true;
        this.push(null);
        this.resume();
        return convert(bytes);
      }

      async text() {
        return this.#consume((bytes) => this.#decode(bytes));
      }

      async json() {
        return JSON.parse(await this.#consume((bytes) => this.#decode(bytes)));
      }

      async blob() {
        return this.#consume((bytes) => new Blob([bytes], { type: this.#contentType }));
      }

      async bytes() {
        return this.#consume((bytes) => new Uint8Array(bytes));
      }

      async arrayBuffer() {
        return this.#consume((bytes) => new Uint8Array(bytes).buffer);
      }

      async formData() {
        throw new (loadErrors().NotSupportedError)();
      }

      #decode(bytes) {
        const hasMark = bytes.length > 2 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
        const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        return (hasMark ? text.subarray(3) : text).toString(this.readableEncoding ?? "utf8");
      }

      get bodyUsed() {
        return this.#isConsumed || isDisturbed(this);
      }

      get body() {
        return this.#web ??= Readable.toWeb(this);
      }

      async dump({ limit = 128 << 10, signal } = {}) {
        signal?.throwIfAborted();
        if (this.closed) return null;
        this.on("error", () => {});
        const stop = () => this.destroy(signal.reason);
        signal?.addEventListener("abort", stop);
        let read = 0;
        const closed = new Promise((resolve) => this.on("close", resolve));
        if (this.#length > limit) this.destroy();
        else {
          this.on("data", (chunk) => {
            read += chunk.length;
            if (read > limit) this.destroy();
          });
        }
        await closed;
        signal?.removeEventListener("abort", stop);
        signal?.throwIfAborted();
        return null;
      }
    };
  }

  // -------------------------------------------------------------------------------------------------------------
  // Requests
  // -------------------------------------------------------------------------------------------------------------

  // A failure in undici's terms.
  function errorOf({ failure, message }, { hostname, port, protocol } = {}) {
    const errors = loadErrors();
    switch (failure) {
      case "connect timeout": {
        const address = `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
        return new errors.ConnectTimeoutError(
          `Connect Timeout Error (attempted address: ${address}, timeout: ${CONNECT_TIMEOUT}ms)`,
        );
      }
      case "headers timeout":
        return new errors.HeadersTimeoutError();
      case "body timeout":
        return new errors.BodyTimeoutError();
      case "headers overflow":
        return new errors.HeadersOverflowError();
      case "protocol":
        return new errors.HTTPParserError(`Response does not match the HTTP/1.1 protocol (${message})`, "INVALID_CONSTANT");
      case "reset":
        return Object.assign(new Error("read ECONNRESET"), { errno: -104, code: "ECONNRESET", syscall: "read" });
      default:
        return new errors.SocketError("other side closed");
    }
  }

  // What of a request goes to Rust, or undefined if it is more than can be done here.
  function translate(options, settings) {
    for (const key of Object.keys(options)) {
      if (options[key] != null && !REQUEST_OPTIONS.includes(key)) return undefined;
    }
    const { body, bodyTimeout, headersTimeout, method, path, query } = options;
    const origin = String(options.origin);
    if (!METHODS.includes(method) || typeof path !== "string" || !PATH.test(path) || !ORIGIN.test(origin)) return undefined;
    const timeouts = [headersTimeout ?? settings.headersTimeout, bodyTimeout ?? settings.bodyTimeout];
    if (!timeouts.every((timeout) => Number.isFinite(timeout) && timeout >= 0)) return undefined;
    const headers = translateHeaders(method, options.headers);
    if (headers === undefined) return undefined;
    let bytes;
    if (typeof body === "string") bytes = core.encode(body);
    else if (core.isTypedArray(body) && body instanceof Uint8Array) bytes = body;
    else if (body != null) return undefined;
    const isEmpty = bytes === undefined || bytes.length === 0;
    if (isEmpty && WITH_BODY.includes(method)) headers.push("content-length", "0");
    let search = "";
    if (query != null) {
      if (typeof query !== "object" || path.includes("?")) return undefined;
      search = part("node:querystring").stringify(query);
    }
    const url = new URL(origin).origin + path + (search === "" ? "" : `?${search}`);
    return { headers, bytes: isEmpty ? null : bytes, timeouts, url };
  }

  function translateHeaders(method, headers) {
    // Some servers send a body where there must be none.
    const list = ["connection", method === "HEAD" ? "close" : "keep-alive"];
    if (headers == null) return list;
    if (typeof headers !== "object") return undefined;
    const isFlat = Array.isArray(headers);
    if (isFlat ? headers.length % 2 !== 0 : Symbol.iterator in headers) return undefined;
    const flat = listOf(headers);
    for (let at = 0; at < flat.length; at += 2) {
      const { [at]: name, [at + 1]: value } = flat;
      if (value === undefined) continue;
      if (typeof name !== "string" || !HEADER_NAME.test(name) || DELICATE_HEADERS.includes(name.toLowerCase())) return undefined;
      for (const each of Array.isArray(value) ? value : [value]) {
        if (typeof each === "object" && each !== null || typeof each === "function" || typeof each === "symbol") return undefined;
        const text = each === null ? "" : String(each);
        if (!HEADER_VALUE.test(text)) return undefined;
        list.push(name, text);
      }
    }
    return list;
  }

  function addHeaders(to, list) {
    for (let at = 0; at < list.length; at += 2) {
      const { [at]: name, [at + 1]: value } = list;
      if (!Object.hasOwn(to, name)) {
        Object.defineProperty(to, name, { value, writable: true, enumerable: true, configurable: true });
      } else if (Array.isArray(to[name])) to[name].push(value);
      else to[name] = [to[name], value];
    }
    return to;
  }

  // The answer to one request, null if nothing was sent, and what the trace knows of it.
  async function exchange(method, { url, headers, bytes, timeouts }) {
    let context;
    if (tracer !== undefined && !headers.some((name, at) => at % 2 === 0 && name.toLowerCase() === "traceparent")) {
      context = tracer.begin(method, url);
      headers.push("traceparent", context);
    }
    const answer = await ask(method, url, headers, bytes, CONNECT_TIMEOUT, timeouts[0]);
    if (context !== undefined && answer !== null) tracer.end(context, answer.status ?? 0);
    if (answer?.failure === undefined) return { answer, context };
    throw errorOf(answer, new URL(url));
  }

  async function send(options, settings, byUndici) {
    const most = settings.redirects ? options.maxRedirections ?? settings.maxRedirections : 0;
    const isUndicis = !isUsed || !isCount(most) || (!settings.redirects && options.maxRedirections);
    const history = [];
    let current = options;
    while (true) {
      const request = isUndicis ? undefined : translate(current, settings);
      const { answer, context } = request === undefined ? { answer: null } : await exchange(current.method, request);
      if (answer === null) {
        const rest = most ? { ...current, maxRedirections: most - history.length } : current;
        return context === undefined ? byUndici(rest) : traced(context, rest, byUndici);
      }
      const headers = addHeaders({}, answer.headers);
      const next = most ? redirected(current, answer.status, headers.location, most, history) : undefined;
      if (next === undefined) {
        const response = respond(current.method, answer, headers, settings, request.timeouts[1]);
        return Object.assign(response, { context: most ? { history } : undefined });
      }
      if (answer.rest > 0) op_fnhost_http_let_go(answer.rest);
      current = next;
    }
  }

  // What the trace knows of already.
  async function traced(context, options, byUndici) {
    let status = 0;
    try {
      const response = await byUndici({ ...options, headers: [...listOf(options.headers), "traceparent", context] });
      status = response.statusCode;
      return response;
    } finally {
      tracer.end(context, status);
    }
  }

  // Names and values in turns.
  function listOf(headers) {
    return Array.isArray(headers) ? headers : Object.entries(headers ?? {}).flat(1);
  }

  function isCount(most) {
    return most == null || (Number.isInteger(most) && most >= 0);
  }

  // The request that a response leads to, if it does.
  function redirected(options, status, location, most, history) {
    const base = new URL(options.path, options.origin);
    const isLast = history.length >= most;
    history.push(base);
    if (isLast || !location || !REDIRECTS.includes(status)) return undefined;
    const { InvalidArgumentError } = loadErrors();
    const { origin, pathname, search, protocol } = new URL(location, base);
    if (protocol !== "http:" && protocol !== "https:") {
      throw new InvalidArgumentError("Invalid URL protocol: the URL must start with `http:` or `https:`.");
    }
    const path = pathname + search;
    if (history.some((url) => url.toString() === origin + path)) {
      throw new InvalidArgumentError(
        `Redirect loop detected. Cannot redirect to ${origin}. This typically happens when using a Client or Pool with cross-origin redirects. Use an Agent for cross-origin redirects.`,
      );
    }
    const isMoved = status === 301 || status === 302;
    const becomesGet = status === 303 ? options.method !== "HEAD" : isMoved && options.method === "POST";
    const left = listOf(options.headers);
    const headers = [];
    for (let at = 0; at < left.length; at += 2) {
      const name = String(left[at]).toLowerCase();
      const isSecret = name === "authorization" || name === "cookie" || name === "proxy-authorization";
      if (isSecret && origin !== new URL(options.origin).origin) continue;
      if (status === 303 && name.startsWith("content-")) continue;
      headers.push(left[at], left[at + 1]);
    }
    const method = becomesGet ? "GET" : options.method;
    return { ...options, origin, path, method, headers, query: null, body: becomesGet ? null : options.body };
  }

  function respond(method, answer, headers, { decompresses }, patience) {
    const { status: statusCode, reason: statusText } = answer;
    const length = method === "HEAD" || !headers["content-length"] ? undefined : Number(headers["content-length"]);
    const raw = new Source(answer, Number.isFinite(length) ? length : undefined, patience);
    const decoders = decompresses ? decodersOf(statusCode, headers["content-encoding"]) : [];
    if (decoders.length > 0) {
      delete headers["content-encoding"];
      delete headers["content-length"];
    }
    const body = decoders.length > 0
      ? bodyOf(new DecodedSource(raw, decoders), headers["content-type"], undefined)
      : bodyOf(raw, headers["content-type"], raw.length);
    return { statusCode, statusText, headers, trailers: raw.trailers, opaque: null, body };
  }

  function decodersOf(status, encoding) {
    if (!encoding || status === 204 || status === 304 || status >= 400) return [];
    const encodings = String(encoding).toLowerCase().split(",");
    if (encodings.length > MOST_ENCODINGS) {
      throw new Error(
        `too many content-encodings in response: ${encodings.length}, maximum allowed is ${MOST_ENCODINGS}`,
      );
    }
    const names = encodings.map((name) => name.trim()).filter((name) => name !== "").reverse();
    const zlib = part("node:zlib").default;
    if (!names.every((name) => typeof zlib[DECODERS[name]] === "function")) return [];
    return names.map((name) => zlib[DECODERS[name]]());
  }

  // -------------------------------------------------------------------------------------------------------------
  // What undici exports
  // -------------------------------------------------------------------------------------------------------------

  // What agents made here are.
  const agents = new WeakMap();

  // Interceptors made here, and what they mean.
  const interceptors = new WeakMap();

  // An object that is `get()` but for some properties. `shown` says what is seen of the others.
  function inFrontOf(get, own, shown = (value) => value, target = {}, others = {}) {
    return new Proxy(target, {
      get: (_, key) => Object.hasOwn(own, key) ? own[key] : shown(get()[key], get()),
      set(_, key, value) {
        delete own[key];
        return Reflect.set(get(), key, value);
      },
      has: (_, key) => Object.hasOwn(own, key) || Reflect.has(get(), key),
      deleteProperty: (_, key) => delete own[key] && Reflect.deleteProperty(get(), key),
      defineProperty: (_, key, descriptor) => delete own[key] && Reflect.defineProperty(get(), key, descriptor),
      ownKeys: () => Reflect.ownKeys(get()),
      getOwnPropertyDescriptor(_, key) {
        const descriptor = Reflect.getOwnPropertyDescriptor(get(), key);
        if (descriptor === undefined) return undefined;
        const { enumerable } = descriptor;
        return Object.hasOwn(own, key)
          ? { value: own[key], writable: true, enumerable, configurable: true }
          : { ...descriptor, configurable: true };
      },
      getPrototypeOf: () => Reflect.getPrototypeOf(get()),
      ...others,
    });
  }

  // A class of undici's, of which `make` may make instances. One that is asked for by a class that extends it is undici's.
  function classInFrontOf(name, make, own = {}) {
    const get = () => real()[name];
    const front = inFrontOf(get, { __proto__: null, ...own }, undefined, function () {}.bind(), {
      construct(_, values, constructor) {
        if (constructor !== front) return Reflect.construct(get(), values, constructor);
        return make(...values) ?? Reflect.construct(get(), values);
      },
    });
    return front;
  }

  function makeAgent(options, ...others) {
    if (others.length > 0 || !isPlainOptions(options)) return undefined;
    let made;
    const undicis = () => made ??= new (real().Agent)(options);
    const { bodyTimeout = USUAL_TIMEOUT, headersTimeout = USUAL_TIMEOUT } = options ?? {};
    return agentWith({ bodyTimeout, headersTimeout }, undicis, { isClosed: false });
  }

  function isPlainOptions(options) {
    if (options === undefined) return true;
    if (options === null || typeof options !== "object") return false;
    const { bodyTimeout, connect, headersTimeout } = options;
    const isTime = (value) => value === undefined || (Number.isInteger(value) && value >= 0);
    const isOrdinary = connect == null ||
      (typeof connect === "object" && Object.keys(connect).every((key) => connect[key] === undefined));
    return isOrdinary && isTime(bodyTimeout) && isTime(headersTimeout) &&
      Object.keys(options).every((key) => options[key] === undefined || AGENT_OPTIONS.includes(key));
  }

  function agentWith(settings, undicis, shared) {
    const end = (name) => (...values) => {
      if (!shared.isClosed) op_fnhost_http_close();
      shared.isClosed = true;
      return undicis()[name](...values);
    };
    const own = {
      __proto__: null,
      // Whoever awaits an agent has one.
      then: undefined,
      request(options, callback) {
        const isOurs = callback === undefined && options !== null && typeof options === "object" && !shared.isClosed;
        if (!isOurs) return undicis().request(options, callback);
        return send(options, settings, (rest) => undicis().request(rest));
      },
      compose(...list) {
        const added = { ...settings };
        for (const interceptor of (Array.isArray(list[0]) ? list[0] : list)) {
          if (interceptor == null) continue;
          const meaning = interceptors.get(interceptor);
          if (meaning === undefined) return undicis().compose(...list);
          Object.assign(added, meaning);
        }
        let composed;
        return agentWith(added, () => composed ??= undicis().compose(...list), shared);
      },
      close: end("close"),
      destroy: end("destroy"),
    };
    const ofUndici = (value, agent) => typeof value === "function" ? value.bind(agent) : value;
    const agent = inFrontOf(undicis, own, ofUndici);
    agents.set(agent, own);
    return agent;
  }

  function interceptor(name, options, meaning) {
    const intercept = (dispatch) => real().interceptors[name](options)(dispatch);
    interceptors.set(intercept, meaning);
    return intercept;
  }

  const ownInterceptors = {
    __proto__: null,
    redirect(options) {
      const { maxRedirections, ...others } = options ?? {};
      if (!isCount(maxRedirections) || Object.keys(others).length > 0) return real().interceptors.redirect(options);
      return interceptor("redirect", options, { redirects: true, maxRedirections });
    },
    decompress(options) {
      if (Object.keys(options ?? {}).length > 0) return real().interceptors.decompress(options);
      return interceptor("decompress", options, { decompresses: true });
    },
  };

  let usual;

  function request(url, options, callback) {
    const isText = typeof url === "string" || url instanceof URL;
    const { dispatcher, ...others } = options ?? {};
    const agent = dispatcher ?? (globalThis[DISPATCHER] === undefined ? usual ??= new fronts.Agent() : undefined);
    const ours = agent === undefined ? undefined : agents.get(agent);
    const isOurs = ours !== undefined && isText && callback === undefined && others.path == null && URL.canParse(url);
    if (!isOurs) return real().request(url, options, callback);
    const { origin, pathname, search } = new URL(url);
    const method = others.method || (others.body ? "PUT" : "GET");
    return ours.request({ ...others, origin, path: pathname + search, method });
  }

  const fronts = {
    __proto__: null,
    Agent: classInFrontOf("Agent", makeAgent),
    // Adaptors ask of every body whether it is one. As long as undici was not evaluated, none is.
    FormData: classInFrontOf("FormData", () => undefined, {
      [Symbol.hasInstance]: (value) => loaded !== undefined && value instanceof real().FormData,
    }),
    interceptors: inFrontOf(() => real().interceptors, ownInterceptors),
    request,
  };
  return inFrontOf(real, fronts);
}

// Does once what a run does for a request, and sends nothing. V8 compiles functions when they are first called, and a
// snapshot taken after that holds them compiled.
export async function warmUp(part) {
  if (!isWanted) return;
  await op_void_async_deferred();
  const json = new Uint8Array(core.encode("{}"));
  const answer = { status: 200, reason: "OK", headers: ["content-type", "application/json"], body: json.buffer, trailers: [], rest: 0 };
  const none = () => undefined;
  const { Agent, interceptors } = undici(none, none, part, async () => answer);
  const agent = new Agent().compose(interceptors.redirect(), interceptors.decompress());
  const url = new URL("http://localhost/?a=b");
  const { origin, pathname, search, searchParams } = url;
  part("node:buffer").Buffer.isBuffer(String(url));
  const query = part("node:querystring").parse(searchParams.toString());
  const headers = { "content-type": "application/json" };
  for (const method of ["GET", "POST"]) {
    const { body } = await agent.request({ origin, path: pathname, method, query, headers, body: method === "POST" ? search : null });
    await body.text();
  }
}
