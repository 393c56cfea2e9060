// Snapshots that isolates start from: what is done before and after one is taken, and the rehearsal that tells what may
// be evaluated in it.

import { core, primordials } from "ext:core/mod.js";
import * as runtimeOps from "ext:core/ops";
import { warmUp as warmUpRequests } from "ext:fnhost/http_client.js";
import { areAnyPartsLoaded, evaluateIfPossible, isPartLoaded, loadPart, observe, taint } from "ext:fnhost/modules.js";

const { op_stream_base_register_state } = core.ops;
const {
  ArrayPrototypeFind,
  ArrayPrototypeIncludes,
  ArrayPrototypeSome,
  Error,
  FunctionPrototypeBind,
  ObjectDefineProperty,
  ObjectGetPrototypeOf,
  ObjectHasOwn,
  ObjectIs,
  Proxy,
  ReflectApply,
  ReflectConstruct,
  ReflectDeleteProperty,
  ReflectGet,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  StringPrototypeIncludes,
  StringPrototypeSplit,
  StringPrototypeStartsWith,
} = primordials;

const plain = (value) => ({ __proto__: null, value, configurable: true, writable: true });

// ---------------------------------------------------------------------------------------------------------------
// Taking a snapshot
// ---------------------------------------------------------------------------------------------------------------

// What the runtime itself looks for when it starts from a snapshot.
const { Deno: bootstrapDeno, __bootstrap: bootstrapCore, bootstrap: bootstrapEntries } = globalThis;

// The runtime's namespace as its bootstrap made it, in an isolate that started from a snapshot taken here.
let namespace;
export const runtimeNamespace = () => namespace;

let restoreCrypto;
let restoreChannels;

// Before anything is evaluated that shall be in the snapshot.
export function beginSnapshot() {
  restoreCrypto = standInForCrypto();
  restoreChannels = standInForChannels();
}

// Evaluates a part of the Node layer, if it may be in a snapshot.
export function loadPartAhead(specifier) {
  if (isPart(specifier)) loadPart(specifier);
}

// After that: what runs do with these parts. Gives a promise if it must be waited for.
export function warmUp() {
  if (isPartLoaded("node:stream") && isPartLoaded("node:querystring")) return warmUpRequests(loadPart);
}

// After that: makes the global scope again what the runtime expects to find.
export function endSnapshot() {
  restoreCrypto();
  restoreChannels();
  emptyForeignClasses();
  namespace = globalThis.Deno;
  ObjectDefineProperty(globalThis, "Deno", plain(bootstrapDeno));
  ObjectDefineProperty(globalThis, "__bootstrap", plain(bootstrapCore));
  ObjectDefineProperty(globalThis, "bootstrap", plain({ ...bootstrapEntries, mainRuntime: resume }));
}

// Classes for drawing, windows and desktops, which the runtime has beside those of Node. Their methods would be a
// twentieth of what an isolate begins with.
const FOREIGN_CLASSES = [
  "BrowserWindow",
  "CSSRule",
  "CSSStyleSheet",
  "Dock",
  "ImageBitmap",
  "ImageBitmapRenderingContext",
  "ImageData",
  "Notification",
  "OffscreenCanvas",
  "Tray",
  "UnsafeWindowSurface",
  "WGSLLanguageFeatures",
];

export function isForeignClass(name) {
  if (typeof name !== "string") return false;
  return ArrayPrototypeIncludes(FOREIGN_CLASSES, name) || StringPrototypeStartsWith(name, "GPU") ||
    (StringPrototypeStartsWith(name, "DOM") && name !== "DOMException");
}

function emptyForeignClasses() {
  for (const name of ReflectOwnKeys(runtimeOps)) {
    if (!isForeignClass(name)) continue;
    const { prototype } = runtimeOps[name];
    for (const key of ReflectOwnKeys(prototype)) ReflectDeleteProperty(prototype, key);
  }
}

// What takes the place of the runtime's bootstrap when it starts from such a snapshot.
function resume() {
  delete globalThis.bootstrap;
  delete globalThis.__bootstrap;
  core.loadExtScript("ext:deno_web/15_performance.js").setTimeOrigin();
  // If it is not in the snapshot, loading it would be a tenth of what an isolate costs.
  if (!areAnyPartsLoaded()) return;
  // The Node layer gave it to Rust while the snapshot was made; sockets look for it there.
  const { streamBaseState } = core.loadExtScript("ext:deno_node/internal_binding/stream_wrap.ts");
  op_stream_base_register_state(streamBaseState);
}

// WebCrypto keeps parts of itself in Rust, which no snapshot can hold, and Node's `crypto` takes hold of it when it loads.
// So it gets something that asks for the real one when it is used.
function standInForCrypto() {
  const exports = core.loadExtScript("ext:deno_crypto/00_crypto.js");
  const original = ReflectGetOwnPropertyDescriptor(exports, "crypto");
  const subtle = standIn(() => exports.crypto.subtle);
  const value = standIn(() => exports.crypto, { __proto__: null, subtle });
  ObjectDefineProperty(exports, "crypto", { __proto__: null, value, configurable: true, enumerable: true });
  return () => ObjectDefineProperty(exports, "crypto", original);
}

// Channels are registered for finalization, which no snapshot can hold. A package that asks for one gets something that
// asks for the real one when it is used.
function standInForChannels() {
  const exports = core.createLazyLoader("node:diagnostics_channel")().default;
  const { channel } = exports;
  exports.channel = (name) => {
    let real;
    return standIn(() => real ??= channel(name));
  };
  return () => exports.channel = channel;
}

function standIn(real, own = { __proto__: null }) {
  return new Proxy(own, {
    __proto__: null,
    get(_, key) {
      if (ObjectHasOwn(own, key)) return own[key];
      const value = real()[key];
      return typeof value === "function" ? FunctionPrototypeBind(value, real()) : value;
    },
    getPrototypeOf: () => ObjectGetPrototypeOf(real()),
    has: (_, key) => key in real(),
  });
}

// ---------------------------------------------------------------------------------------------------------------
// Rehearsal
// ---------------------------------------------------------------------------------------------------------------

// Parts of the Node layer that a module may read while it is evaluated in a snapshot. The others know something of the
// machine or the moment, or were not tried.
const PARTS = [
  "assert",
  "async_hooks",
  "buffer",
  "child_process",
  "console",
  "constants",
  "crypto",
  "diagnostics_channel",
  "dns",
  "events",
  "fs",
  "fs/promises",
  "http",
  "http2",
  "https",
  "module",
  "net",
  "path",
  "path/posix",
  "path/win32",
  "perf_hooks",
  "process",
  "punycode",
  "querystring",
  "stream",
  "stream/promises",
  "stream/web",
  "string_decoder",
  "sys",
  "timers",
  "timers/promises",
  "tls",
  "tty",
  "url",
  "util",
  "util/types",
  "vm",
  "worker_threads",
  "zlib",
];

// Names that the global scope makes when they are first read, and that are the same for all runs.
const STEADY_GLOBALS = [
  "AbortController",
  "AbortSignal",
  "Blob",
  "Buffer",
  "ByteLengthQueuingStrategy",
  "CloseEvent",
  "CountQueuingStrategy",
  "CustomEvent",
  "DOMException",
  "ErrorEvent",
  "Event",
  "EventTarget",
  "File",
  "FormData",
  "Headers",
  "MessageChannel",
  "MessageEvent",
  "MessagePort",
  "ProgressEvent",
  "ReadableStream",
  "Request",
  "Response",
  "TextDecoder",
  "TextDecoderStream",
  "TextEncoder",
  "TextEncoderStream",
  "TransformStream",
  "URL",
  "URLSearchParams",
  "WritableStream",
  "clearImmediate",
  "clearInterval",
  "clearTimeout",
  "global",
  "process",
  "self",
];

// What there is not while a snapshot is taken, what a run may replace, and what tells the time.
const UNSTEADY_GLOBALS = ["SharedArrayBuffer", "WebAssembly", "fetch", "performance"];

const TIMERS = ["queueMicrotask", "setImmediate", "setInterval", "setTimeout"];

// What tells of the process or the moment, or would have to happen in each run.
const PROCESS_FUNCTIONS = [
  "addListener",
  "cpuUsage",
  "emitWarning",
  "hrtime",
  "memoryUsage",
  "nextTick",
  "on",
  "once",
  "prependListener",
  "resourceUsage",
  "setUncaughtExceptionCaptureCallback",
  "uptime",
];
const PROCESS_VALUES = ["pid", "ppid", "title"];

const RANDOM = [
  "generateKeyPairSync",
  "generateKeySync",
  "generatePrimeSync",
  "getRandomValues",
  "randomBytes",
  "randomFillSync",
  "randomInt",
  "randomUUID",
];

const isPart = (specifier) => ArrayPrototypeSome(PARTS, (part) => specifier === `node:${part}`);

// From now on, modules are tainted that do while they are evaluated what a snapshot must not hold. Evaluates those that
// runs are known to need.
export function rehearse(numbers) {
  // They put names into the global scope when they are loaded, which is no module's doing.
  for (const part of PARTS) core.createLazyLoader(`node:${part}`)();
  const watchedHooks = watchPerformance(core.createLazyLoader("node:perf_hooks")());
  observe({
    __proto__: null,
    onBuiltin(name) {
      if (!isPart(name)) taint();
      return name === "node:perf_hooks" ? watchedHooks : undefined;
    },
    beforeModule(builtins) {
      const before = surface(builtins);
      return () => {
        if (before.some(({ object, properties }) => isChanged(object, properties))) taint();
      };
    },
  });
  // The scope puts their values in place when they are first read.
  for (const key of STEADY_GLOBALS) void globalThis[key];
  const { process } = globalThis;
  const crypto = core.createLazyLoader("node:crypto")().default;
  for (const key of PROCESS_FUNCTIONS) watchFunction(process, key);
  for (const key of PROCESS_VALUES) watchRead(process, key);
  for (const key of RANDOM) watchFunction(crypto, key);
  watchFunction(globalThis.Math, "random");
  watchClock();
  for (const key of TIMERS) watchFunction(globalThis, key);
  for (const key of UNSTEADY_GLOBALS) watchRead(globalThis, key);
  for (const key of ReflectOwnKeys(globalThis)) {
    const { get } = ReflectGetOwnPropertyDescriptor(globalThis, key);
    if (get !== undefined && !ArrayPrototypeIncludes(STEADY_GLOBALS, key)) watchRead(globalThis, key);
  }
  evaluateIfPossible(numbers);
}

// All that modules share: objects that a name of the global scope leads to, or a part of the Node layer is. A module that
// changes them must do so in the runs that load it, and in no others.
function surface(builtins) {
  const shared = [globalThis, globalThis.process, ...ReflectOwnKeys(builtins).map((name) => builtins[name].default)];
  for (const key of ReflectOwnKeys(globalThis)) {
    const { value } = ReflectGetOwnPropertyDescriptor(globalThis, key);
    shared.push(value);
    if (typeof value === "function") shared.push(ReflectGetOwnPropertyDescriptor(value, "prototype")?.value);
  }
  const hidden = [function* () {}, async () => {}, async function* () {}, [].values(), new Map().keys(), "".matchAll(/x/g)];
  shared.push(...hidden.map(ObjectGetPrototypeOf), ...hidden.map((object) => ObjectGetPrototypeOf(ObjectGetPrototypeOf(object))));
  const objects = shared.filter((object) => typeof object === "function" || (typeof object === "object" && object !== null));
  return objects.map((object) => ({ object, properties: propertiesOf(object) }));
}

function propertiesOf(object) {
  return ReflectOwnKeys(object).flatMap((key) => {
    const { value, get, set } = ReflectGetOwnPropertyDescriptor(object, key);
    return [key, value, get, set];
  });
}

function isChanged(object, properties) {
  const now = propertiesOf(object);
  return now.length !== properties.length || now.some((value, at) => !ObjectIs(value, properties[at]));
}

function watchRead(object, key) {
  const descriptor = ReflectGetOwnPropertyDescriptor(object, key);
  if (descriptor === undefined || !descriptor.configurable) return;
  ObjectDefineProperty(object, key, {
    __proto__: null,
    get() {
      taint();
      return descriptor.get === undefined ? descriptor.value : ReflectApply(descriptor.get, object, []);
    },
    set(value) {
      ObjectDefineProperty(object, key, { ...plain(value), enumerable: descriptor.enumerable });
    },
    enumerable: descriptor.enumerable,
    configurable: true,
  });
}

function watchFunction(object, key) {
  const original = object[key];
  if (typeof original !== "function") return;
  object[key] = new Proxy(original, {
    __proto__: null,
    apply(target, self, values) {
      taint();
      return ReflectApply(target, self, values);
    },
    // Such as `process.hrtime.bigint`.
    get(target, name) {
      if (ObjectHasOwn(target, name) && typeof target[name] === "function") taint();
      return ReflectGet(target, name);
    },
  });
}

// The part of the Node layer that tells the time, where only having it does no harm.
function watchPerformance(hooks) {
  const performance = new Proxy(hooks.performance, {
    __proto__: null,
    get(target, name) {
      taint();
      const value = target[name];
      return typeof value === "function" ? FunctionPrototypeBind(value, target) : value;
    },
  });
  return { ...hooks, performance, default: { ...hooks.default, performance } };
}

// Packages that read the clock while they are evaluated, only to see later that it was long ago.
const PATIENT_PACKAGES = ["lodash", "lodash-es"];

function onClock() {
  const frames = StringPrototypeSplit(new Error().stack, "\n");
  const caller = ArrayPrototypeFind(frames, (frame, at) => at > 0 && !StringPrototypeIncludes(frame, "ext:fnhost/"));
  const isFrom = (name) => StringPrototypeIncludes(caller ?? "", `/node_modules/${name}/`);
  if (!ArrayPrototypeSome(PATIENT_PACKAGES, isFrom)) taint();
}

function watchClock() {
  const { Date } = globalThis;
  const now = () => {
    onClock();
    return Date.now();
  };
  globalThis.Date = new Proxy(Date, {
    __proto__: null,
    apply(target, self, values) {
      onClock();
      return ReflectApply(target, self, values);
    },
    construct(target, values, constructor) {
      if (values.length === 0) onClock();
      return ReflectConstruct(target, values, constructor);
    },
    get: (target, name) => name === "now" ? now : ReflectGet(target, name),
  });
}
