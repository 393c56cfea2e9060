// A test run: HTTP requests are shown and answered here, inside the isolate. No byte of them reaches a socket, and no
// host name a resolver.
//
// Requests leave by two doors, the global `fetch` and Node's sockets. `fetch` is replaced. Sockets are intercepted at
// `net.Socket.prototype.connect`, through which `http`, `https` and libraries with an HTTP client of their own (undici)
// go alike, whichever way they were imported: a socket is joined to Node's own HTTP server instead of to the network.
// Encryption is pretended, so that the server reads what the client would have encrypted. What does not speak HTTP is
// refused; whatever else exists is refused by the run's permissions, which allow no network at all.

import { core } from "ext:core/mod.js";
import { leaveToUndici } from "ext:fnhost/http_client.js";

// Of a body this much is shown.
const SHOWN = 4096;
// A client that says nothing for this long waits for a greeting, as clients of MySQL, SMTP and FTP do. HTTP clients
// connect when they have a request to send. Counted in turns of the event loop, so that a job that computes for
// seconds between connecting and sending is not taken for silent.
const SILENCE = { turns: 10, each: 100 };

const ANSWER = "{}";
const ANSWER_HEADERS = { "content-type": "application/json" };

const module = (name) => core.createLazyLoader(name)();

// `show(method, url, headers, beginning of the body, length of the body)` takes what would have been sent. Headers are
// names and values in turns.
export function intercept(show) {
  interceptFetch(show);
  leaveToUndici();
  interceptSockets(show);
}

function interceptFetch(show) {
  const { fetch, Request, Response } = globalThis;
  globalThis.fetch = async (input, init) => {
    const request = new Request(input, init);
    if (!/^https?:/.test(request.url)) return fetch(request);
    request.signal.throwIfAborted();
    const body = new Uint8Array(await request.arrayBuffer());
    const url = request.url.split("#", 1)[0];
    show(request.method, url, [...request.headers].flat(), body.subarray(0, SHOWN), body.length);
    const response = new Response(request.method === "HEAD" ? null : ANSWER, { headers: ANSWER_HEADERS });
    return Object.defineProperty(response, "url", { value: url });
  };
}

// What a socket asks of the operating system's handle behind it. Here there is none.
class Handle {
  reading = true;

  constructor(socket) {
    this.socket = socket;
  }

  close(done) {
    if (done) process.nextTick(done);
  }

  getAsyncId() {
    return 0;
  }

  readStart() {
    return 0;
  }

  readStop() {
    return 0;
  }
}

// The same for a socket that believes it is encrypted.
class SecureHandle extends Handle {
  setServername() {}
  setVerifyMode() {}
  setAlpnProtocols() {}
  setSessionAllowed() {}
  _attachNativeHandle() {}
  destroySsl() {}

  verifyError() {
    return null;
  }

  getServername() {
    return this.socket._tlsOptions.servername;
  }

  getAlpnNegotiatedProtocol(out) {
    out.alpnProtocol = offers(this.socket, "http/1.1") ? "http/1.1" : false;
  }

  getProtocol(out) {
    out.protocol = "TLSv1.3";
    return 0;
  }

  getCipher(out) {
    out.name = out.standardName = "TLS_AES_256_GCM_SHA384";
    out.version = "TLSv1.3";
    return 0;
  }

  // A certificate for whatever name the client is going to look for in it.
  getPeerCertificate() {
    const { host } = lines.get(this.socket);
    const names = [host, this.socket._tlsOptions.servername ?? host];
    return { subject: { CN: host }, subjectaltname: names.map((name) => `DNS:${name}, IP Address:${name}`).join(", ") };
  }
}

// Whether the client of a secure socket can speak `protocol`. It says so in a list, or in that list's wire format.
function offers(socket, protocol) {
  return String(socket._tlsOptions.ALPNProtocols ?? "").includes(protocol);
}

// Socket -> the line it is on.
const lines = new WeakMap();

// A connection as the server sees it.
function openLine(Duplex, host, port) {
  const line = new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      line.client.push(chunk);
      done();
    },
    final(done) {
      line.client.push(null);
      done();
    },
    // The client still reads what it was sent.
    destroy(error, done) {
      line.client.push(null);
      done(error);
    },
  });
  return Object.assign(line, { host, port, scheme: "http:", client: undefined, heard: false });
}

// Makes `socket` the client end of `line`.
function join(socket, line) {
  lines.set(socket, line);
  line.client = socket;
  socket.once("close", () => line.destroy());
  socket._read = () => {};
  socket._writev = null;
  socket._write = (chunk, encoding, done) => {
    line.heard = true;
    line.push(chunk, encoding);
    done();
  };
  socket._final = (done) => {
    line.push(null);
    done();
  };
}

function refuse(socket, host, port, reason) {
  const to = port === undefined ? host : `${host}:${port}`;
  const error = new Error(
    `A test run (--test) shows and answers HTTP requests only. The connection to ${to} is refused: ${reason}`,
  );
  socket.destroy(Object.assign(error, { code: "ECONNREFUSED", syscall: "connect", address: host, port }));
}

function interceptSockets(show) {
  const { Socket, _normalizeArgs, isIP } = module("node:net").default;
  const { TLSSocket } = module("node:tls").default;
  const { Duplex } = module("node:stream").default;
  const server = makeServer(module("node:http").default, show);
  const { nextTick } = process;

  Socket.prototype.connect = function (...args) {
    const [options, connected] = Array.isArray(args[0]) ? args[0] : _normalizeArgs(args);
    this._handle ??= new Handle(this);
    this.connecting = true;
    if (connected) this.once("connect", connected);
    if (Object.hasOwn(options, "path") && options.path) {
      nextTick(refuse, this, options.path, undefined, "it is a socket of this machine.");
      return this;
    }
    const host = options.host ?? "localhost";
    const line = openLine(Duplex, host, Number(options.port));
    join(this, line);
    // An address for documentation: some clients look whether they were led to a private one.
    this._peername = { address: isIP(host) ? host : "192.0.2.1", family: "IPv4", port: line.port };
    nextTick(() => {
      if (this.destroyed) return;
      server.emit("connection", line);
      this.connecting = false;
      this.emit("connect");
      this.emit("ready");
      expectWords(line, SILENCE.turns);
    });
    return this;
  };

  // Where a socket would set encryption up.
  TLSSocket.prototype._wrapHandle = function (wrap) {
    wrap?.on("close", () => this.destroy());
    return new SecureHandle(this);
  };

  // In place of the handshake. A socket on top of another one, say a tunnel's, takes over its line.
  TLSSocket.prototype._start = function () {
    if (this.connecting) return void this.once("connect", this._start);
    const line = lines.get(this) ?? lines.get(this._parent);
    if (!line) return this.destroy(new Error("A test run (--test) cannot encrypt this stream"));
    join(this, line);
    line.scheme = "https:";
    if (offers(this, "h2") && !offers(this, "http/1.1")) {
      return refuse(this, line.host, line.port, "the client speaks HTTP/2 only.");
    }
    nextTick(() => this._finishInit());
  };
}

function expectWords(line, turns) {
  if (line.heard || line.destroyed || line.client.destroyed) return;
  if (turns > 0) {
    setTimeout(expectWords, SILENCE.each, line, turns - 1);
  } else {
    refuse(line.client, line.host, line.port, "the client waits for a greeting, which HTTP does not have.");
  }
}

function makeServer(http, show) {
  const server = http.createServer({ maxHeaderSize: 1 << 20 }, (request, response) => {
    const line = request.socket;
    const beginning = [];
    let length = 0;
    request.on("data", (chunk) => {
      if (length < SHOWN) beginning.push(chunk.subarray(0, SHOWN - length));
      length += chunk.length;
    });
    request.on("end", () => {
      show(request.method, address(request, line), request.rawHeaders, Buffer.concat(beginning), length);
      response.sendDate = false;
      response.writeHead(200, { ...ANSWER_HEADERS, "content-length": ANSWER.length });
      response.end(ANSWER);
    });
  });
  server.keepAliveTimeout = 0;
  server.httpAllowHalfOpen = true;
  server.on("clientError", (_error, { client, host, port }) => refuse(client, host, port, "it does not speak HTTP/1.1."));
  // A proxy: behind it begins the connection that matters.
  server.on("connect", (request, line) => {
    const { hostname, port } = new URL(`https://${request.url}`);
    Object.assign(line, { host: hostname, port: Number(port || 443) });
    line.write("HTTP/1.1 200 Connection established\r\n\r\n");
    server.emit("connection", line);
  });
  return server;
}

// The URL of a request: through a proxy it is there in full, else it is put together.
function address(request, { scheme, host, port }) {
  if (!request.url.startsWith("/")) return request.url;
  const name = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
  const usual = port === (scheme === "https:" ? 443 : 80);
  return `${scheme}//${name}${usual ? "" : `:${port}`}${request.url}`;
}
